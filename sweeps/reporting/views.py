"""What tables and figures show of a part of a report: one quantity, by rows and columns."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from core_tuning.methods import hyperparameters
from core_tuning.report.figures import Mark, Panel, Place, save_heat_map, save_lines, save_points
from core_tuning.report.page import Figure
from core_tuning.report.summary import summarise
from core_tuning.report.tables import Table

from ..claims import CLEAN, read_eps
from ..plan import ROW
from .findings import name_value, quantity_name
from .results import DOMAINS, MEASURE, PartReport, over_axes

# A cell without a finished run, and a combination that nobody asked for.
MISSING, ABSENT = "missing", "–"
MEAN = "mean"
# A page holds so many columns of "54.41 ± 4.85 (5), paper 78.71".
MOST_COLUMNS = 6
POINTS = (
    "Large markers are means, small ones single runs, the lines through them 95% intervals over "
    "runs (Student-t), cut at 0 and 100; a black dash is the paper's value."
)
CELLS = "Cells have mean, half of the 95% interval (Student-t) and number of runs."
SHARED = "The panels of a row share their y axis, which need not begin at 0."
_NORMS = {"l2": "L2", "linf": "L-infinity"}
_AXES = {
    "dataset": "data set",
    "target": "target domain, which was not trained on",
    "share": "share of the training images",
    MEASURE: "budget of the attack",
    ROW: "method",
}
_HYPERPARAMETERS = {each.name: each.declaration.help for each in hyperparameters()}
# A number alone, or after a word, such as "0.07" or "dim 256".
_NUMBER = re.compile(r"(?:(\w+) )?(-?\d+(?:\.\d+)?(?:e-?\d+)?)")


@dataclass(frozen=True)
class View:
    """One quantity of a part.

    Attributes:
        part: that it is of.
        quantity: as in `PartReport`.
        rule: of model selection; "" if there is none.
        fixed: axes that have one value only, and that value.
        rows: name of the axis whose values are the rows.
        columns: (c,) names of the axes that are the columns, "measure" among them; () where the
            rows are all there is.
        cells: those of `part` that belong here, with the name of their "column".
        values: those of `part` that belong here, likewise.
    """

    part: PartReport
    quantity: str
    rule: str
    fixed: dict[str, str]
    rows: str
    columns: tuple[str, ...]
    cells: pd.DataFrame
    values: pd.DataFrame

    @property
    def label(self) -> str:
        """The quantity with its unit."""
        if self.part.command == "finetune":
            return "test accuracy, top-1 (%)"
        if self.part.command in DOMAINS:
            return "accuracy on the target domain, top-1 (%)"
        return f"{quantity_name(self.quantity)} (%)"

    @property
    def where(self) -> list[str]:
        """The axes that do not vary, such as "cifar10", and the rule of model selection."""
        said = [name_value(*each) for each in self.fixed.items() if each[1]]
        return [*said, f"selected by {self.rule}"] if self.rule else said

    def names(self, axis: str) -> list[str]:
        """Values of an axis, or names of the columns, in the definition's order."""
        return list(dict.fromkeys(self.cells[axis]))


def _marks(
    cells: pd.DataFrame, values: pd.DataFrame, keys: Sequence[str]
) -> dict[tuple[str, ...], Mark]:
    """What figures draw of each cell, by its value of each key."""
    runs = {key: own.tolist() for key, own in values.groupby(list(keys))["value"]}
    papers = zip(cells[list(keys)].itertuples(index=False, name=None), cells["paper"], strict=True)
    return {
        key: Mark(runs.get(key, ()), None if math.isnan(paper) else paper) for key, paper in papers
    }


def views_of(part: PartReport) -> list[View]:
    """Return a view for each quantity of a part and each rule of model selection.

    The budgets of `robust` are columns, and an axis that repeats them is left out.
    """
    axes = [axis for axis in part.axes if not (part.cells[axis] == part.cells[MEASURE]).all()]
    robust = part.command == "robust"
    if robust:
        axes.append(MEASURE)
    free = [axis for axis in axes if part.cells[axis].nunique() > 1]
    fixed = {axis: part.cells[axis].iloc[0] for axis in axes if axis not in free}
    has_rows = bool((part.cells[ROW] != "").any()) or not free
    rows = ROW if has_rows else free.pop(0)
    cells, values = (
        frame.assign(column=[_column(line, free) for line in frame.to_dict("records")])
        for frame in (part.cells, part.values)
    )
    keys = ["quantity"] if robust else ["quantity", MEASURE]
    runs = dict(iter(values.groupby(keys)))
    return [
        View(part, key[0], "".join(key[1:]), fixed, rows, tuple(free), own,
             runs.get(key, values[:0]))
        for key, own in cells.groupby(keys, sort=False)
    ]  # fmt: skip


def _column(line: Mapping[Any, Any], axes: Sequence[str]) -> str:
    names = dict.fromkeys(axes)
    # A budget that is an axis too is named once.
    if any(line[axis] == line[MEASURE] for axis in axes if axis != MEASURE):
        names.pop(MEASURE, None)
    return ", ".join(name_value(axis, line[axis]) for axis in names)


# Tables.


def tables_of(part: PartReport) -> list[Table]:
    """The tables of a part, one a view, as far as anything is finished for its rule.

    Cells hold mean, half of the 95% interval and number of runs, and the paper's number.
    """
    views = views_of(part)
    shown = [view for view in views if not view.rule or len(view.values)]
    # Of a part without a finished run, the first rule's table says what is missing.
    return [_table(view) for view in shown or views[:1]]


def _table(view: View) -> Table:
    part, cells = view.part, view.cells
    rows = [name_value(view.rows, row) for row in view.names(view.rows)]
    lines = cells[view.rows].map(lambda row: name_value(view.rows, row))
    texts = cells.assign(line=lines, text=[cell_text(cell) for cell in cells.to_dict("records")])
    frame = texts.pivot(index="line", columns="column", values="text")
    frame = frame.reindex(index=rows, columns=view.names("column")).fillna(ABSENT)
    averaged = part.axes in (("dataset",), ("target",)) and part.command != "robust"
    if averaged and view.rows == ROW and len(frame.columns) > 1:
        for title, names in _averages(view.names(part.axes[0])):
            chosen = cells[cells[part.axes[0]].isin(names)]
            frame[title] = [_mean_text(part, row, chosen, len(names)) for row in rows]
    if len(frame.columns) > MOST_COLUMNS and len(frame.columns) > len(frame):
        frame = frame.T
    what = f"{quantity_name(view.quantity)} (%)"
    header = ["", *(column or what for column in frame.columns)]
    fixed = [said for said in view.where if said != f"selected by {view.rule}"]
    rule = [f"selected by {view.rule}"] if view.rule else []
    title = ", ".join([*filter(None, [part.name]), *fixed, what, *rule])
    return Table(header, [[row, *rest] for row, *rest in frame.itertuples()], title)


def cell_text(cell: Mapping[Any, Any]) -> str:
    """The words of a line of `PartReport.cells`, such as "54.41 ± 4.85 (2 of 3)".

    Below them stand the paper's number, its standard error, and how far the mean is from it.
    """
    n, expected, mean, paper = (cell[key] for key in ("n", "expected", "mean", "paper"))
    if not expected and not n:
        return ABSENT
    runs = f"({n})" if n == expected else f"({n} of {expected})"
    measured = [f"{mean:.2f}" if n else MISSING, _number("± ", cell["interval"]), runs]
    printed = [_number("paper ", paper), _number("± s.e. ", cell["paper_standard_error"])]
    difference = f"{mean - paper:+.2f}" if n and not math.isnan(paper) else ""
    below = ", ".join(filter(None, [_joined(printed), difference]))
    return "\n".join(filter(None, [_joined(measured), below]))


def _number(what: str, number: float) -> str:
    return "" if math.isnan(number) else f"{what}{number:.2f}"


def _joined(words: Iterable[str]) -> str:
    return " ".join(filter(None, words))


def _averages(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Title and values of each mean: of all, or of "PACS, photo" and the like by data set."""
    by_dataset: dict[str, list[str]] = {}
    for name in names:
        dataset, comma, _ = name.partition(", ")
        by_dataset.setdefault(dataset if comma else "", []).append(name)
    if len(by_dataset) == 1:
        return [(MEAN, list(names))]
    return [(f"{MEAN} of {dataset}", own) for dataset, own in by_dataset.items() if len(own) > 1]


def _mean_text(part: PartReport, row: str, cells: pd.DataFrame, count: int) -> str:
    """The mean over a row's own cells of those seeds that have all of them, and of the paper's.

    A row that lacks some of the `count` cells has none: it would be of other things than the
    means below and above it.
    """
    own = cells[cells[ROW] == row]
    if len(own) < count or not own["expected"].all():
        return ABSENT
    values = over_axes(part, row, own).tolist()
    summary = summarise(values) if values else None
    return cell_text(
        {
            "mean": math.nan if summary is None else summary.mean,
            "interval": math.nan if summary is None or summary.interval is None
            else summary.interval,
            "n": len(values),
            "expected": int(own["expected"].max()),
            "paper": own["paper"].mean(skipna=False),
            "paper_standard_error": math.nan,
        }
    )  # fmt: skip


# Figures.


class PartFigures(NamedTuple):
    """The figures of a part, and a sentence for each that is left out."""

    drawn: list[Figure]
    left_out: list[str]


def draw_parts(parts: Sequence[PartReport], folder: Path, name: str) -> dict[str, PartFigures]:
    """Draw what a paper would show of each part, as PNG files in a folder.

    Heat maps of two numeric axes, lines of one, points by data set or target domain elsewhere, and
    accuracy against eps of all parts that measure robustness at several budgets; that is with the
    first of them.

    Args:
        parts: of a report.
        folder: is made if need be.
        name: of the report, for files of a part without one.

    Returns:
        What was drawn and what was not, by the part's name.
    """
    budgets = [p for p in parts if p.command == "robust" and p.cells[MEASURE].nunique() > 1]
    figures = {}
    for part in parts:
        stem = folder / figure_stem(parts, part, name)
        made = figures[part.name] = PartFigures([], [])
        if part not in budgets:
            for number, view in enumerate(views_of(part)):
                if len(view.values):
                    made.drawn.extend(_draw(view, stem.with_name(f"{stem.name}-{number}")))
                else:
                    what = ", ".join([view.label, *view.where])
                    made.left_out.append(f"No figure of {what}: nothing is finished for it.")
        elif part is budgets[0]:
            _draw_budgets(budgets, stem, made)
        else:
            made.left_out.append(f"Its accuracies are in the figure of {budgets[0].name}.")
    return figures


def figure_stem(parts: Sequence[PartReport], part: PartReport, name: str) -> str:
    """How the names of a part's figures begin."""
    number = next(i for i, each in enumerate(parts, 1) if each is part)
    slug = re.sub(r"[^a-z0-9]+", "-", (part.name or name).lower()).strip("-") or "part"
    return f"{number}-{slug}"


def _draw(view: View, stem: Path) -> Iterator[Figure]:
    axes = [view.rows, *view.columns]
    free = [axis for axis in axes if axis != ROW]
    if len(free) == 2 and all(set(numbers(view.names(axis)) or ()) == {""} for axis in free):
        yield from _heat_maps(view, free, stem)
    # Domains may have numbers as names, such as "location 38".
    elif len(free) == 1 and view.part.command not in DOMAINS and numbers(view.names(free[0])):
        yield _lines(view, free[0], stem.with_name(f"{stem.name}-lines.png"))
    else:
        yield _points(view, stem.with_name(f"{stem.name}-points.png"))


def _figure(view: View, path: Path, what: str, names: Sequence[str], reading: str) -> Figure:
    """Say of a figure what it shows, how to read it, and what is missing."""
    what = (
        f"{what[:1].upper()}{what[1:]}{f' ({where})' if (where := ', '.join(view.where)) else ''}"
    )
    missing = int((view.cells["n"] == 0).sum())
    gaps = f" Without a finished run: {missing} of {len(view.cells)} cells." if missing else ""
    return Figure(path, f"{what}: {listed(names)}", f"{what}. {reading}{gaps}")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; a part without rows has one name, which is empty."""
    return "; ".join(filter(None, names)) or "all runs"


def _axis(axis: str) -> str:
    """An axis in words: a hyper-parameter's are those of its option, without advice."""
    for name in (axis, f"projection_{axis}"):
        if name in _HYPERPARAMETERS:
            said, _, _ = _HYPERPARAMETERS[name].partition(";")
            return f"{name}: {said.partition(' (')[0]}"
    return _AXES.get(axis, axis)


def _points(view: View, path: Path) -> Figure:
    marks = _marks(view.cells, view.values, [view.rows, "column"])
    rows, columns = view.names(view.rows), view.names("column")
    groups = {
        column: {row: marks[row, column] for row in rows if (row, column) in marks}
        for column in columns
    }
    by = ", ".join(map(_axis, view.columns))
    save_points(groups, path, label=view.label, groups_label=by)
    what = f"{view.label}, by {' and '.join(filter(None, [_axis(view.rows), by]))}"
    return _figure(view, path, what, [*rows, *columns], POINTS)


def _heat_maps(view: View, axes: Sequence[str], stem: Path) -> Iterator[Figure]:
    """One for each row, or one where there are no rows."""
    y_axis, x_axis = axes
    ys, xs = view.names(y_axis), view.names(x_axis)
    for number, (row, cells) in enumerate(view.cells.groupby(ROW, sort=False)):
        if not cells["n"].any():
            continue
        words = [re.sub(" (?=[±(])", "\n", cell_text(cell)) for cell in cells.to_dict("records")]
        cells = cells.assign(text=words)
        means, texts = (
            cells.pivot(index=y_axis, columns=x_axis, values=name).reindex(index=ys, columns=xs)
            for name in ("mean", "text")
        )
        path = stem.with_name(f"{stem.name}-map-{number}.png")
        save_heat_map(
            means.to_numpy(dtype=float), texts.fillna(MISSING).to_numpy().tolist(), path, rows=ys,
            columns=xs, xlabel=_axis(x_axis), ylabel=_axis(y_axis), label=view.label,
            title=str(row),
        )  # fmt: skip
        what = f"{view.label}, by {_axis(y_axis)} and {_axis(x_axis)}"
        shown = f"{row}: {what}" if row else what
        yield _figure(replace(view, cells=cells), path, shown, [*ys, *xs], CELLS)


def _lines(view: View, axis: str, path: Path) -> Figure:
    """A panel for each word before the numbers, such as "dim" and "depth"."""
    marks = _marks(view.cells, view.values, [ROW, axis])
    panels = []
    for word, places in (numbers(view.names(axis)) or {}).items():
        lines: dict[str, dict[Place, Mark]] = {}
        for row, (x, name) in itertools.product(view.names(ROW), places):
            if (row, name) in marks:
                place = x, name.removeprefix(word).strip()
                lines.setdefault(row, {})[place] = marks[row, name]
        panels.append(Panel(_axis(word or axis), view.label, lines))
    save_lines([panels], path)
    what = f"{view.label}, by {', and by '.join(panel.xlabel for panel in panels)}"
    return _figure(view, path, what, [*view.names(ROW), *view.names(axis)], POINTS)


def numbers(names: Sequence[str]) -> dict[str, list[tuple[float, str]]] | None:
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


def read_budget(measure: str) -> tuple[str, float, str]:
    """Norm, eps and eps as it is written, of a measure such as "linf 4/255"."""
    norm, _, eps = measure.partition(" ")
    return norm, read_eps(eps), eps


def _draw_budgets(parts: Sequence[PartReport], stem: Path, figures: PartFigures) -> None:
    """Draw accuracy against eps, of parts with the same axes apart from the budget.

    Rows of panels are accuracy without an attack and under each; columns are norms; and a figure
    is of one value of the other axes, such as "cifar10".
    """
    grids: dict[str, dict[tuple[str, str], dict[str, dict[Place, Mark]]]] = {}
    rows = [row for part in parts for row in part.cells[ROW].unique()]
    for part in parts:
        others = [a for a in part.axes if not (part.cells[a] == part.cells[MEASURE]).all()]
        keys = [ROW, *part.axes, MEASURE, "quantity"]
        for key, mark in _marks(part.cells, part.values, keys).items():
            cell = dict(zip(keys, key, strict=True))
            norm, eps, written = read_budget(cell[MEASURE])
            where = ", ".join(name_value(axis, cell[axis]) for axis in others)
            panels = grids.setdefault(where, {})
            lines = panels.setdefault((cell["quantity"], norm), {})
            # Where two parts have the same row, with the name of the part.
            row = cell[ROW] if rows.count(cell[ROW]) == 1 else f"{cell[ROW]} ({part.name})"
            lines.setdefault(row, {})[eps, written] = mark
    for number, (where, panels) in enumerate(grids.items()):
        what = f"accuracy against eps{f' of {where}' if where else ''}"
        if not any(mark.runs for lines in panels.values() for line in lines.values()
                   for mark in line.values()):  # fmt: skip
            figures.left_out.append(f"No figure of {what}: no run is finished.")
            continue
        quantities = sorted(dict.fromkeys(q for q, _ in panels), key=lambda q: q != CLEAN)
        norms = list(dict.fromkeys(norm for _, norm in panels))
        grid = [
            [_budget_panel(quantity, norm, panels.get((quantity, norm), {})) for norm in norms]
            for quantity in quantities
        ]
        path = stem.with_name(f"{stem.name}-eps-{number}.png")
        save_lines(grid, path)
        names = list(dict.fromkeys(itertools.chain.from_iterable(panels.values())))
        what = f"{what[:1].upper()}{what[1:]}, without and under attack"
        caption = f"{what}. {POINTS} {SHARED}"
        figures.drawn.append(Figure(path, f"{what}: {listed(names)}", caption))


def _budget_panel(quantity: str, norm: str, lines: Mapping[str, Mapping[Place, Mark]]) -> Panel:
    xlabel = f"eps ({_NORMS.get(norm, norm)} norm, images in [0, 1])"
    # On two lines, as a panel is low.
    return Panel(xlabel, f"{quantity_name(quantity)} (%)".replace(" ", "\n", 1), lines)
