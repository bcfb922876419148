"""Accuracies against a number, such as a temperature or eps: lines with intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from core_tuning.report.summary import summarise

from .old_figures import (
    LETTER,
    leave_room,
    look,
    mark_paper,
    paper_handle,
    save,
    within_percent,
    write_missing,
)

# Of the line styles, which tell lines apart in grey where markers are far from each other.
STYLES = ("-", "--", "-.", ":")
# Where the largest number is this many times the smallest, equal steps would crowd the small ones.
LOGARITHMIC = 15
# Shares of a panel's width: between neighbouring lines' points at most, and between ticks' labels.
SHIFT, APART = 0.045, 0.07
# Share of the space between two places that all their lines' points take at most.
CROWD = 0.6
# Half of the dash for the paper's value, as a share of a panel's width.
DASH = 0.025
PANEL_WIDTH, PANEL_HEIGHT = 4.3, 3.0


class Point(NamedTuple):
    """What a line has at one place.

    Attributes:
        x: the number.
        name: that the axis shows for it.
        runs: in percent; () where none is finished.
        paper: the value to compare with, or None.
    """

    x: float
    name: str
    runs: Sequence[float]
    paper: float | None


class Panel(NamedTuple):
    """A pair of axes: its labels with units, and points by the line that they belong to."""

    xlabel: str
    ylabel: str
    lines: dict[str, list[Point]]


def save_lines(grid: Sequence[Sequence[Panel]], path: Path) -> None:
    """Draw panels in rows that share their y axis, and one legend of all lines.

    Single runs are small, the mean has its 95% interval (Student-t, cut at 0% and 100%), a black
    dash is the paper's. Points of one place stand side by side. A point without runs leaves the
    word "missing".

    Args:
        grid: rows of equally many panels.
        path: of the PNG file.

    Raises:
        ValueError: no point has a run.
    """
    panels = [panel for row in grid for panel in row]
    points = [point for panel in panels for line in panel.lines.values() for point in line]
    if not any(len(point.runs) for point in points):
        raise ValueError("no point has any run: nothing to draw.")
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    columns = len(grid[0])
    legend = max(20, *map(len, names)) * LETTER + 0.7
    size = (PANEL_WIDTH * columns + legend, PANEL_HEIGHT * len(grid) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    subplots = figure.subplots(len(grid), columns, squeeze=False, sharey="row")
    for row, line_of_panels in zip(subplots, grid, strict=True):
        gaps = [_draw_panel(*each, names) for each in zip(row, line_of_panels, strict=True)]
        row[0].set_ylim(within_percent(row[0].get_ylim()))
        if any(gaps):
            # The y axis is that of the row.
            leave_room(row[0])
        for axes in row:
            axes.tick_params(labelleft=True)
        for axes in row[1:]:
            axes.set_ylabel("")
    _add_legend(figure, names, paper=any(point.paper is not None for point in points))
    save(figure, path)


def _draw_panel(axes: Any, panel: Panel, names: Sequence[str]) -> bool:
    """Draw a panel; return whether it has points that are missing."""
    places = {point.x: point.name for line in panel.lines.values() for point in line}
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    if not places:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        return False
    logarithmic = min(places) > 0 and max(places) >= LOGARITHMIC * min(places)
    low, high = (_scaled(x, logarithmic) for x in (min(places), max(places)))
    width = high - low or 1.0
    if logarithmic:
        axes.set_xscale("log")
    scaled = sorted(_scaled(x, logarithmic) for x in places)
    gap = min((b - a for a, b in itertools.pairwise(scaled)), default=width)
    step = min(SHIFT * width, CROWD * gap / len(names))
    for number, name in enumerate(names):
        shift = step * (number - (len(names) - 1) / 2)
        line = sorted(panel.lines.get(name, []), key=lambda point: point.x)
        drawn = [(_unscaled(_scaled(point.x, logarithmic) + shift, logarithmic), point)
                 for point in line]  # fmt: skip
        _draw_line(axes, drawn, number)
        for point in line:
            if point.paper is not None:
                ends = [_unscaled(_scaled(point.x, logarithmic) + shift + side, logarithmic)
                        for side in (-DASH * width, DASH * width)]  # fmt: skip
                mark_paper(axes, ends, [point.paper, point.paper])
    ticks = _apart({x: _scaled(x, logarithmic) for x in sorted(places)}, APART * width)
    axes.set_xticks(ticks, [places[x] for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    room = 0.06 * width + step * len(names) / 2
    sides = (low - room, high + room)
    axes.set_xlim(*(_unscaled(x, logarithmic) for x in sides))
    axes.grid(alpha=0.3)
    return bool(axes.texts)


def _draw_line(axes: Any, drawn: Sequence[tuple[float, Point]], number: int) -> None:
    colour, marker = look(number)
    edge = {"color": colour, "marker": marker, "mec": "black", "ls": "none"}
    summaries = [(x, summarise(point.runs) if len(point.runs) else None) for x, point in drawn]
    # NaN leaves a gap where nothing is finished.
    means = [math.nan if summary is None else summary.mean for _, summary in summaries]
    axes.plot([x for x, _ in drawn], means, color=colour, lw=1.2, marker="",
              ls=STYLES[number % len(STYLES)])  # fmt: skip
    for x, point in drawn:
        axes.plot([x] * len(point.runs), point.runs, ms=2.6, mew=0.3, alpha=0.7, **edge)
    for x, summary in summaries:
        if summary is None:
            write_missing(axes, x)
            continue
        if summary.interval is not None:
            # The bar is dark because yellow cannot be seen on white.
            axes.errorbar(x, summary.mean, yerr=summary.interval, ecolor="#333333",
                          elinewidth=1.1, capsize=2.5, fmt="none", zorder=2.5)  # fmt: skip
        axes.plot([x], [summary.mean], ms=6, mew=0.8, zorder=3, **edge)


def _add_legend(figure: Figure, names: Sequence[str], *, paper: bool) -> None:
    handles = []
    for number in range(len(names)):
        colour, marker = look(number)
        handles.append(Line2D([], [], color=colour, marker=marker, mec="black", ms=6, mew=0.8,
                              ls=STYLES[number % len(STYLES)]))  # fmt: skip
    shown = [name or "measured here" for name in names]
    if paper:
        handles.append(paper_handle())
        shown.append("the paper's value")
    figure.legend(handles, shown, loc="outside right upper", fontsize="small", frameon=False,
                  title="mean, 95% interval;\nsmall: single runs", title_fontsize="small",
                  alignment="left", handlelength=2.6)  # fmt: skip


def _scaled(x: float, logarithmic: bool) -> float:
    return math.log10(x) if logarithmic else x


def _unscaled(x: float, logarithmic: bool) -> float:
    return 10**x if logarithmic else x


def _apart(places: dict[float, float], distance: float) -> list[float]:
    """Keep, from the largest down, the numbers whose labels do not run into each other."""
    kept: list[float] = []
    for x in reversed(places):
        if not kept or places[kept[-1]] - places[x] >= distance:
            kept.append(x)
    return kept[::-1]
