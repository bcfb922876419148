"""A part's cells as tables for readers: rows by axes, each cell a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core_tuning.report.summary import summarise

from ..claims import ACCURACY, CLEAN
from .frames import over_axes
from .model import PartReport

# A cell without a finished run, and a combination that the sweep does not have.
MISSING = "missing"
ABSENT = "–"
MEAN = "mean"
# A page holds so many columns of "54.41 ± 4.85 (5), paper 78.71".
_MOST_COLUMNS = 6

# The text of a cell, a line of `PartReport.cells` as a mapping.
Text = Callable[[Mapping[str, Any]], str]


class Table(NamedTuple):
    """A table of texts.

    Attributes:
        title: what its numbers are.
        header: (columns,) the first is of the lines' names.
        rows: each of (columns,).
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(part: PartReport, text: Text | None = None) -> list[Table]:
    """The tables of a part.

    One a quantity, and for domain generalisation one a rule of model selection, as far as
    anything is finished for it; cells hold mean, half of the 95% interval and number of runs, and
    the paper's number.

    Args:
        part: whose cells are shown.
        text: of a cell, `cell_text` by default; it reads mean, interval, n, expected, paper and
            paper_standard_error.
    """
    text = text or cell_text
    by_measure = part.command in ("dg", "domainbed")
    keys = ["measure", "quantity"] if by_measure else ["quantity"]
    tables = []
    for name, cells in part.cells.groupby(keys, sort=False):
        measure = name[0] if by_measure else ""
        if not by_measure or cells["n"].any():
            tables.append(_table(part, cells, str(name[-1]), measure, text))
    return tables


def _table(part: PartReport, cells: Any, quantity: str, measure: str, text: Text) -> Table:
    shown = [axis for axis in part.axes if cells[axis].nunique() > 1]
    fixed = [str(cells[axis].iloc[0]) for axis in part.axes if axis not in shown]
    has_rows = cells["row"].ne("").any()
    # Without rows the first axis has the lines.
    line_axis = "row" if has_rows or not shown else shown.pop(0)
    texts: dict[tuple[str, str], str] = {}
    names = (line_axis, *shown)
    for cell in cells.to_dict("records"):
        line, *others = (name_value(axis, str(cell[axis])) for axis in names)
        if part.command == "robust":
            others.append(cell["measure"])
        # A budget that is an axis too is named once.
        texts[line, ", ".join(dict.fromkeys(others))] = text(cell)
    lines = list(dict.fromkeys(line for line, _ in texts))
    columns = list(dict.fromkeys(column for _, column in texts))
    body = [[texts.get((line, column), ABSENT) for column in columns] for line in lines]
    if _has_mean(part, has_rows) and len(columns) > 1:
        for title, averaged in _averages(list(dict.fromkeys(cells[part.axes[0]]))):
            columns.append(title)
            own = cells[cells[part.axes[0]].isin(averaged)]
            for row, line in zip(body, lines, strict=True):
                row.append(_mean_text(part, line, own, text))
    if len(columns) > _MOST_COLUMNS and len(columns) > len(lines):
        lines, columns = columns, lines
        body = [list(row) for row in zip(*body, strict=True)]
    header = ("", *(column or _accuracy(quantity) for column in columns))
    rows = tuple((line, *row) for line, row in zip(lines, body, strict=True))
    return Table(_title(part, fixed, quantity, measure), header, rows)


def name_value(axis: str, value: str) -> str:
    """A value of an axis, with the axis where it is a bare number or share, such as "eta 0.1"."""
    return f"{axis} {value}" if axis != "row" and value[:1].isdigit() else value


def _accuracy(quantity: str) -> str:
    names = {ACCURACY: "accuracy (%)", CLEAN: "accuracy without an attack (%)"}
    return names.get(quantity, f"accuracy under {quantity} (%)")


def _title(part: PartReport, fixed: Sequence[str], quantity: str, measure: str) -> str:
    what = _accuracy(quantity)
    chosen = [f"selected by {measure}"] if measure else []
    return ", ".join([*([part.name] if part.name else []), *fixed, what, *chosen])


def cell_text(cell: Mapping[str, Any]) -> str:
    """Mean, half of the 95% interval, runs (of how many, if some are missing), and the paper."""
    of = "" if cell["n"] == cell["expected"] else f" of {cell['expected']}"
    mean = _interval(cell["mean"], cell["interval"]) if cell["n"] else MISSING
    parts = [f"{mean} ({cell['n']}{of})"]
    if not math.isnan(cell["paper"]):
        parts.append(f"paper {_interval(cell['paper'], cell['paper_standard_error'], 's.e. ')}")
    return ", ".join(parts)


def _interval(mean: float, spread: float, what: str = "") -> str:
    return f"{mean:.2f}" if math.isnan(spread) else f"{mean:.2f} ± {what}{spread:.2f}"


def _has_mean(part: PartReport, has_rows: bool) -> bool:
    """Whether the cells are averaged over the axis, as the paper does over these two."""
    averaged = part.axes in (("dataset",), ("target",)) and part.command != "robust"
    return bool(has_rows) and averaged


def _averages(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Title and values of each mean: of all, or of "PACS, photo" and the like by data set."""
    by_dataset: dict[str, list[str]] = {}
    for name in names:
        dataset, comma, _ = name.partition(", ")
        by_dataset.setdefault(dataset if comma else "", []).append(name)
    if len(by_dataset) == 1:
        return [(MEAN, list(names))]
    return [(f"{MEAN} of {dataset}", own) for dataset, own in by_dataset.items() if len(own) > 1]


def _mean_text(part: PartReport, line: str, cells: Any, text: Text) -> str:
    """The mean over the axis of those seeds that have all of it, and of the paper's numbers."""
    own = cells[cells["row"] == line]
    values = over_axes(part, [line], own)[line].tolist()
    summary = summarise(values) if values else None
    spread = summary.interval if summary is not None else None
    return text(
        {
            "mean": math.nan if summary is None else summary.mean,
            "interval": math.nan if spread is None else spread,
            "n": len(values),
            "expected": int(own["expected"].max()),
            "paper": own["paper"].mean(skipna=False),
            "paper_standard_error": math.nan,
        }
    )
