"""What one table or figure shows of a part: one quantity, by rows and columns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from .model import PartReport

if TYPE_CHECKING:
    import pandas as pd

ROW = "row"
MEASURE = "measure"
# A number alone, or after a word, such as "0.07" or "dim 256".
_NUMBER = re.compile(r"(?:(\w+) )?(-?\d+(?:\.\d+)?(?:e-?\d+)?)")


class Arrangement(NamedTuple):
    """One quantity of a part, ready for a table or a figure.

    Attributes:
        command: of the part.
        quantity: as in `PartReport`.
        measure: the rule of model selection; "" if there is none, or if `columns` has the measure.
        fixed: axes that have one value only, and that value.
        rows: name of the axis whose values are the rows.
        columns: (c,) names of the axes that are the columns, "measure" among them; () where the
            rows are all there is.
        cells: those of `PartReport` that belong here.
        values: those of `PartReport` that belong here.
    """

    command: str
    quantity: str
    measure: str
    fixed: dict[str, str]
    rows: str
    columns: tuple[str, ...]
    cells: pd.DataFrame
    values: pd.DataFrame

    def names(self, axis: str) -> list[str]:
        """Values of an axis, in the definition's order."""
        return list(dict.fromkeys(self.cells[axis]))

    def column_of(self, line: Any) -> str:
        """Name of the column that a line (a mapping from the frames' columns) belongs to."""
        return ", ".join(line[axis] for axis in self.columns)

    def column_names(self) -> list[str]:
        """Names of the columns, in the definition's order."""
        lines = self.cells[list(self.columns)].drop_duplicates().to_dict("records")
        return [self.column_of(line) for line in lines]

    def runs(self) -> dict[tuple[str, str], list[float]]:
        """Values of the finished runs by (row, column); a cell without any has an empty list."""
        found: dict[tuple[str, str], list[float]] = {
            (line[self.rows], self.column_of(line)): [] for line in self.cells.to_dict("records")
        }
        for line in self.values.to_dict("records"):
            found[line[self.rows], self.column_of(line)].append(line["value"])
        return found

    def lines(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Lines of `cells` by (row, column)."""
        return {
            (line[self.rows], self.column_of(line)): line for line in self.cells.to_dict("records")
        }

    def is_empty(self) -> bool:
        """Whether nothing is finished."""
        return not len(self.values)


def arrange(part: PartReport) -> list[Arrangement]:
    """Return an arrangement for each quantity of a part and each rule of model selection.

    The budgets of `robust` are columns, and an axis that repeats them is left out.
    """
    axes = [axis for axis in part.axes if not (part.cells[axis] == part.cells[MEASURE]).all()]
    measured = part.command == "robust"
    if measured:
        axes.append(MEASURE)
    free = [axis for axis in axes if part.cells[axis].nunique() > 1]
    fixed = {axis: part.cells[axis].iloc[0] for axis in axes if axis not in free}
    if (part.cells[ROW] != "").any() or not free:
        rows = ROW
    else:
        rows = free.pop(0)
    groups = ["quantity"] if measured else ["quantity", MEASURE]
    arrangements = []
    for key, cells in part.cells.groupby(groups, sort=False):
        chosen = dict(zip(groups, key, strict=True))
        values = part.values
        for name, wanted in chosen.items():
            values = values[values[name] == wanted]
        arrangements.append(
            Arrangement(
                part.command, chosen["quantity"], chosen.get(MEASURE, ""), fixed, rows,
                tuple(free), cells, values,
            )
        )  # fmt: skip
    return arrangements


def numbers(names: list[str]) -> dict[str, list[tuple[float, str]]] | None:
    """Read names that end in numbers.

    Returns:
        (number, name) of each by the word before the number, such as "dim" of "dim 64" and "" of
        "0.07"; None if one name has no number, or a word has a single one.
    """
    read: dict[str, list[tuple[float, str]]] = {}
    for name in names:
        match = _NUMBER.fullmatch(name)
        if match is None:
            return None
        read.setdefault(match[1] or "", []).append((float(match[2]), name))
    return read if all(len(each) > 1 for each in read.values()) else None
