"""A part's cells as tables for readers: rows by axes, each cell a text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from core_tuning.report.summary import summarise

from .frames import over_axes
from .labels import name_value, quantity_name
from .model import PartReport
from .texts import ABSENT, cell_text

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
        text: of a cell, `one_line` by default; it reads mean, interval, n, expected, paper and
            paper_standard_error.
    """
    text = text or one_line
    by_measure = part.command in ("dg", "domainbed")
    keys = ["measure", "quantity"] if by_measure else ["quantity"]
    tables: list[Table] = []
    for name, cells in part.cells.groupby(keys, sort=False):
        measure = name[0] if by_measure else ""
        # Of a part without a finished run, the first rule's table says what is missing.
        if not by_measure or cells["n"].any() or not (part.cells["n"].any() or tables):
            tables.append(_table(part, cells, str(name[-1]), measure, text))
    return tables


def _table(part: PartReport, cells: Any, quantity: str, measure: str, text: Text) -> Table:
    shown = [axis for axis in part.axes if cells[axis].nunique() > 1]
    fixed = [name_value(axis, str(cells[axis].iloc[0])) for axis in part.axes if axis not in shown]
    has_rows = cells["row"].ne("").any()
    # Without rows the first axis has the lines.
    line_axis = "row" if has_rows or not shown else shown.pop(0)
    texts: dict[tuple[str, str], str] = {}
    names = (line_axis, *shown)
    for cell in cells.to_dict("records"):
        line, *others = (name_value(axis, str(cell[axis])) for axis in names)
        # A budget that is an axis too is named once.
        if part.command == "robust" and cell["measure"] not in (line, *others):
            others.append(cell["measure"])
        texts[line, ", ".join(others)] = text(cell)
    lines = list(dict.fromkeys(line for line, _ in texts))
    columns = list(dict.fromkeys(column for _, column in texts))
    body = [[texts.get((line, column), ABSENT) for column in columns] for line in lines]
    if _has_mean(part, has_rows) and len(columns) > 1:
        for title, averaged in _averages(list(dict.fromkeys(cells[part.axes[0]]))):
            columns.append(title)
            for row, line in zip(body, lines, strict=True):
                own = cells[(cells["row"] == line) & cells[part.axes[0]].isin(averaged)]
                row.append(_mean_text(part, line, own, len(averaged), text))
    if len(columns) > _MOST_COLUMNS and len(columns) > len(lines):
        lines, columns = columns, lines
        body = [list(row) for row in zip(*body, strict=True)]
    header = ("", *(column or f"{quantity_name(quantity)} (%)" for column in columns))
    rows = tuple((line, *row) for line, row in zip(lines, body, strict=True))
    return Table(_title(part, fixed, quantity, measure), header, rows)


def _title(part: PartReport, fixed: Sequence[str], quantity: str, measure: str) -> str:
    what = f"{quantity_name(quantity)} (%)"
    chosen = [f"selected by {measure}"] if measure else []
    return ", ".join([*([part.name] if part.name else []), *fixed, what, *chosen])


def one_line(cell: Mapping[str, Any]) -> str:
    """Mean, half of the 95% interval, runs (of how many, if some are missing), and the paper."""
    words = cell_text(cell)
    return ", ".join(filter(None, [words.measured(), words.printed()]))


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


def _mean_text(part: PartReport, line: str, own: Any, count: int, text: Text) -> str:
    """The mean over a row's own cells of those seeds that have all of them, and of the paper's.

    A row that lacks some of the `count` cells has none: it would be of other things than the
    means below and above it.
    """
    if len(own) < count or not own["expected"].all():
        return ABSENT
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
