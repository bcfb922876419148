"""The kinds of figures of an arrangement, chosen by what its axes are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .arrangement import ROW, Arrangement, numbers
from .drawings import BARS, CELLS, POINTS, Drawing, describe
from .grids import save_heat_map, save_rows
from .labels import axis_label, quantity_label
from .lines import Panel, Point, save_lines
from .old_figures import grouped_size, save_grouped_accuracies
from .texts import MISSING, cell_text

# Inches: what is wider is split, as a page would shrink its letters.
WIDEST = 11.0
_DOMAINS = ("dg", "domainbed")


def draw(arrangement: Arrangement, stem: Path) -> list[Drawing]:
    """Draw heat maps of two numeric axes, lines of one, rows of one of names, or groups.

    Args:
        arrangement: with at least one finished run.
        stem: of the PNG files' paths.
    """
    axes = [arrangement.rows, *arrangement.columns]
    free = [axis for axis in axes if axis != ROW]
    if len(free) == 2 and all(_is_numeric(arrangement, axis) for axis in free):
        return list(_heat_maps(arrangement, stem))
    # Domains may have numbers as names, such as "location 38".
    numeric = arrangement.command not in _DOMAINS and numbers(arrangement.names(axes[-1]))
    if numeric and len(axes) - (axes[0] == ROW) <= 1:
        return [_lines(arrangement, stem)]
    if len(axes) == 1:
        return [_rows(arrangement, stem)]
    return list(_groups(arrangement, stem))


def _is_numeric(arrangement: Arrangement, axis: str) -> bool:
    """Whether the names of an axis are numbers without words."""
    return set(numbers(arrangement.names(axis)) or ()) == {""}


def _rows(arrangement: Arrangement, stem: Path) -> Drawing:
    runs = {row: values for (row, _), values in arrangement.runs().items()}
    paper = {row: value for (row, _), value in _paper(arrangement).items()}
    path = stem.with_name(f"{stem.name}-rows.png")
    label = quantity_label(arrangement)
    save_rows(runs, path, xlabel=label, paper=paper)
    what = f"{label}, by {axis_label(arrangement.rows)}"
    lines = list(arrangement.lines().values())
    return describe(path, arrangement, what, list(runs), POINTS, lines)


def _groups(arrangement: Arrangement, stem: Path) -> Iterator[Drawing]:
    """Bars for domains, points on an axis of their own range elsewhere; wide ones are split."""
    runs, paper, lines = arrangement.runs(), _paper(arrangement), arrangement.lines()
    rows = arrangement.names(arrangement.rows)
    bars = arrangement.command in _DOMAINS
    label = quantity_label(arrangement)
    xlabel = ", ".join(axis_label(axis) for axis in arrangement.columns)
    what = f"{label}, by {axis_label(arrangement.rows)} and {xlabel}"
    for number, columns in enumerate(_split(arrangement.column_names(), rows)):
        # Of every row, so that a method looks alike in all figures.
        groups = {_folded(column): {row: runs.get((row, column), []) for row in rows}
                  for column in columns}  # fmt: skip
        if not any(values for group in groups.values() for values in group.values()):
            continue
        marks = {
            _folded(column): {row: paper[row, column] for row in rows if (row, column) in paper}
            for column in columns
        }
        path = stem.with_name(f"{stem.name}-groups-{number}.png")
        save_grouped_accuracies(
            groups,
            path,
            ylabel=label,
            xlabel=xlabel,
            paper=marks if any(marks.values()) else None,
            bars=bars,
        )
        shown = [line for (_, column), line in lines.items() if column in columns]
        reading = BARS if bars else POINTS
        yield describe(path, arrangement, what, [*rows, *columns], reading, shown)


def _heat_maps(arrangement: Arrangement, stem: Path) -> Iterator[Drawing]:
    """One for each row, or one where there are no rows."""
    has_rows = arrangement.rows == ROW
    y_axis, x_axis = arrangement.columns if has_rows else (arrangement.rows, *arrangement.columns)
    ys, xs = arrangement.names(y_axis), arrangement.names(x_axis)
    label = quantity_label(arrangement)
    records = arrangement.cells.to_dict("records")
    for number, row in enumerate(arrangement.names(ROW)):
        found = {(line[y_axis], line[x_axis]): line for line in records if line[ROW] == row}
        means = np.array(
            [[found[y, x]["mean"] if (y, x) in found else math.nan for x in xs] for y in ys]
        )
        if np.isnan(means).all():
            continue
        path = stem.with_name(f"{stem.name}-map-{number}.png")
        save_heat_map(
            means,
            [[_in_heat_map(found.get((y, x))) for x in xs] for y in ys],
            path,
            rows=ys,
            columns=xs,
            xlabel=axis_label(x_axis),
            ylabel=axis_label(y_axis),
            label=label,
            title=row,
        )
        what = f"{label}, by {axis_label(y_axis)} and {axis_label(x_axis)}"
        title = f"{row}: {what}" if row else what
        yield describe(path, arrangement, title, [*ys, *xs], CELLS, list(found.values()))


def _lines(arrangement: Arrangement, stem: Path) -> Drawing:
    """A panel for each word before the numbers, such as "dim" and "depth"."""
    axis = arrangement.columns[0] if arrangement.columns else arrangement.rows
    label = quantity_label(arrangement)
    panels = []
    for word, places in (numbers(arrangement.names(axis)) or {}).items():
        lines = _points(arrangement, places, word)
        panels.append(Panel(axis_label(word or axis), label, lines))
    path = stem.with_name(f"{stem.name}-lines.png")
    save_lines([panels], path)
    what = f"{label}, by {', and by '.join(panel.xlabel for panel in panels)}"
    cells = list(arrangement.lines().values())
    return describe(path, arrangement, what, arrangement.names(axis), POINTS, cells)


def _points(
    arrangement: Arrangement, places: list[tuple[float, str]], word: str
) -> dict[str, list[Point]]:
    """Points of each row at places (number, name); without columns all rows are one line."""
    runs, paper = arrangement.runs(), _paper(arrangement)
    names = arrangement.names(ROW) if arrangement.columns else [""]
    lines: dict[str, list[Point]] = {}
    for name in names:
        lines[name] = []
        for x, place in places:
            key = (name, place) if arrangement.columns else (place, "")
            if key in runs:
                shown = place.removeprefix(word).strip()
                lines[name].append(Point(x, shown, runs[key], paper.get(key)))
    return lines


def _paper(arrangement: Arrangement) -> dict[tuple[str, str], float]:
    """The paper's values by (row, column), where it has some."""
    return {
        key: line["paper"]
        for key, line in arrangement.lines().items()
        if not math.isnan(line["paper"])
    }


def _in_heat_map(line: Mapping[str, Any] | None) -> str:
    """Lines for a cell of a heat map."""
    if line is None or line["n"] == 0:
        return MISSING
    words = cell_text(line)
    return "\n".join(filter(None, [words.mean, words.spread, f"n = {words.runs}", words.paper]))


def _split(columns: list[str], rows: list[str]) -> list[list[str]]:
    """Divide columns evenly among as few figures as are not too wide."""
    for count in range(1, len(columns)):
        size = -(-len(columns) // count)
        parts = [columns[first : first + size] for first in range(0, len(columns), size)]
        widths = [grouped_size([_folded(name) for name in part], rows)[0] for part in parts]
        if max(widths) <= WIDEST:
            return parts
    return [[column] for column in columns]


def _folded(name: str) -> str:
    return name.replace(", ", ",\n")
