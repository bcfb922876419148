"""Every figure, as PNG files.

pyplot is not used: it would choose a window system for whoever imports this, and keep figures.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from core_tuning.files import write_atomically, writing

from .summary import summarise

# Okabe and Ito's colours, told apart by colour-blind readers, and their markers in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
# Paul Tol's "muted" scheme and a dark grey: ten classes that colour-blind readers tell apart.
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#555555"),
)
MARKERS = "os^Dv<>PX*"
STYLES = ("-", "--", "-.", ":")
DPI = 150
# The id of the artists that stand for the paper's values.
PAPER = "paper"
# Inches that a letter of a name takes.
LETTER = 0.085
# An axis of percent ends so far beyond 0 and 100, which only intervals of few runs exceed.
PERCENT_MARGIN = 4.0
DARK = "#333333"
MOST_NAMED_CLASSES = 40
MOST_PANELS_IN_A_ROW = 4
# Where the largest number is this many times the smallest, equal steps would crowd the small ones.
LOGARITHMIC = 15
# Shares of a panel's width: between neighbouring lines' points at most, between ticks' labels, and
# half of the dash for the paper's value.
SHIFT, APART, DASH = 0.045, 0.07, 0.025
# Share of the space between two places that all their lines' points take at most.
CROWD = 0.6
# What a legend says of the markers.
OVER_RUNS = "large: mean, 95% interval;\nsmall: single runs"
# Of Rec. 709: how bright red, green and blue look.
LUMINANCE = (0.2126, 0.7152, 0.0722)


class Mark(NamedTuple):
    """What is drawn at one place, in percent; without runs, the word "missing".

    Attributes:
        runs: drawn small, with their mean large.
        paper: the value to compare with, a black dash.
        interval: low and high of a single value; None: the 95% interval of the runs' mean
            (Student-t).
    """

    runs: Sequence[float] = ()
    paper: float | None = None
    interval: tuple[float, float] | None = None


# A number, and what the axis shows for it.
Place = tuple[float, str]


class Panel(NamedTuple):
    """A pair of axes: its labels with units, and the marks of each line by place."""

    xlabel: str
    ylabel: str
    lines: Mapping[str, Mapping[Place, Mark]]


class ImageRow(NamedTuple):
    """A row of images (m, h, w, 3), uint8 or in [0, 1], with a title above each, or none."""

    label: str
    images: np.ndarray
    titles: Sequence[str] = ()


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, at 150 dots an inch; its folder is made if need be."""
    contents = io.BytesIO()
    # Packed tighter, it would take longer than to draw.
    figure.savefig(contents, dpi=DPI, format="png", pil_kwargs={"compress_level": 1})
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, contents.getbuffer())


def look(position: int) -> tuple[str, str]:
    """Colour and marker of a method; the pairs repeat only after 40."""
    return COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]


def save_curves(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], path: Path
) -> None:
    """Draw curves over the steps.

    Args:
        panels: by quantity, for each name the steps and the values.
        path: of the PNG file.
    """
    figure = Figure(figsize=(4.6 * len(panels), 3.4), layout="constrained")
    for axes, (label, curves) in zip(_row(figure, len(panels)), panels.items(), strict=True):
        for number, (name, (steps, values)) in enumerate(curves.items()):
            colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
            dots = "." if len(steps) < 30 else ""
            axes.plot(steps, values, color=colour, ls=style, marker=dots, label=name)
        axes.set(xlabel="optimiser steps", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, path)


def save_confusion(
    confusion: np.ndarray,
    classes: Sequence[str],
    path: Path,
    *,
    images: np.ndarray | None = None,
    title: str = "",
) -> None:
    """Draw counts (K, K), rows true and columns predicted, as percent of each row's images.

    Args:
        confusion: counts (K, K).
        classes: (K,) names.
        path: of the PNG file.
        images: of each class (K,), where `confusion` holds some of the columns only; None: the
            sums of the rows.
        title: above the figure.
    """
    rows = confusion.sum(axis=1) if images is None else images
    percent = 100 * confusion / np.maximum(rows, 1)[:, None]
    side = min(12.0, 3.5 + 0.4 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(classes) <= MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) > 15:
        figure.colorbar(image, label="images of the true class (%)", shrink=0.8)
    else:
        axes.set_xlabel("predicted class, for % of the images of the true class")
        for i, j in np.argwhere(percent >= 0.5):
            colour = "black" if percent[i, j] > 55 else "white"
            axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=colour)
    save(figure, path)


def save_class_accuracies(percent: Mapping[str, float], path: Path) -> None:
    """Draw the accuracy (%) of each class as a bar, in the order given."""
    height = 1.0 + 0.24 * len(percent)
    figure = Figure(figsize=(6 + LETTER * max(map(len, percent)), height), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(percent)), list(percent.values()), color=COLOURS[0], height=0.7)
    axes.bar_label(bars, fmt="%.0f", padding=3, fontsize="small")
    axes.set_yticks(range(len(percent)), percent)
    axes.set(xlim=(0, 108), ylim=(len(percent) - 0.4, -0.6), xlabel="images classified right (%)")
    axes.grid(axis="x", alpha=0.3)
    save(figure, path)


def save_images(rows: Sequence[ImageRow], path: Path) -> None:
    """Draw rows of images; the longest row decides about the width."""
    columns = max(len(row.images) for row in rows)
    titles = [[fold(title, 18) for title in row.titles] for row in rows]
    above = 0.1 + 0.16 * max((1 + title.count("\n") for row in titles for title in row), default=0)
    # Lengths are inches, and images are 1.4 high or wide, 1.5 apart.
    left, down = 0.5 if any(row.label for row in rows) else 0.0, 1.4 + above
    figure = Figure(figsize=(1.5 * columns + left, down * len(rows)))
    # One pair of axes for all: a pair for each image would take several times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    for y, row in enumerate(rows):
        axes.text(
            -left / 2, down * y + above + 0.7, row.label, rotation=90, ha="center", va="center"
        )
        for x, image in enumerate(row.images):
            high, wide = (1.4 * side / max(image.shape[:2]) for side in image.shape[:2])
            middle, top = 1.5 * x + 0.75, down * y + above
            extent = (middle - wide / 2, middle + wide / 2, top + high, top)
            axes.imshow(image, interpolation="nearest", extent=extent)
            if x < len(row.titles):
                place = {"ha": "center", "va": "bottom", "fontsize": "small"}
                axes.text(middle, top - 0.05, titles[y][x], place)
    axes.set(xlim=(-left, 1.5 * columns), ylim=(down * len(rows), 0))
    save(figure, path)


def save_points(
    groups: Mapping[str, Mapping[str, Mark]], path: Path, *, label: str, groups_label: str = ""
) -> None:
    """Draw a row for each method of each group: runs, mean with interval, the paper's value.

    Intervals are cut at 0% and 100%.

    Args:
        groups: of each group, say a target domain, and each method what is drawn. A method that
            a group does not name leaves its row empty. With one group the rows are named on the
            axis, else the groups are, and a legend names the methods.
        path: of the PNG file.
        label: quantity and unit.
        groups_label: what the groups are.

    Raises:
        ValueError: if there is no run.
    """
    _check_runs([mark for group in groups.values() for mark in group.values()])
    methods = list(dict.fromkeys(name for group in groups.values() for name in group))
    alone = len(groups) == 1
    names = methods if alone else list(groups)
    # A method's row is 1 high, and a row is free between groups.
    stride = len(methods) + 1
    rows = (0.4 if alone else 0.25) * len(groups) * stride
    legend = 0.0 if alone else 0.11 * len(methods)
    size = (5.5 + LETTER * max(map(_width, names)), 1.5 + rows + legend)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    for number, group in enumerate(groups.values()):
        for position, method in enumerate(methods):
            if method in group:
                own = look(0 if alone else position)
                place = number * stride + position
                _draw_mark(axes, group[method], place, own, shift=0.2, dash=0.36, upright=False)
        if number % 2:
            low = number * stride - 1
            axes.axhspan(low, low + stride, color="#f2f2f2", zorder=0)
    middles = [number * stride + (len(methods) - 1) / 2 for number in range(len(groups))]
    ticks = list(range(len(methods))) if alone else middles
    axes.set_yticks(ticks, [name or "all runs" for name in names])
    axes.tick_params(axis="y", length=0)
    beside = fold(groups_label, max(12, int(rows / LETTER)))
    axes.set(ylim=(len(groups) * stride - 1, -1), xlabel=label, ylabel=beside)
    axes.set_xlim(within_percent(axes.get_xlim()))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    shown = [""] if alone else methods
    _add_legend(figure, shown, OVER_RUNS, paper=_has_paper(axes), right=False)
    save(figure, path)


def save_lines(grid: Sequence[Sequence[Panel]], path: Path, *, reading: str = OVER_RUNS) -> None:
    """Draw panels in rows that share their y axis, and one legend of all lines.

    Points of one place stand side by side; the x axis is logarithmic where its numbers ask for it.

    Args:
        grid: rows of equally many panels.
        path: of the PNG file.
        reading: of the marks, above the legend.

    Raises:
        ValueError: if there is no run.
    """
    panels = [panel for row in grid for panel in row]
    lines = [line for panel in panels for line in panel.lines.values()]
    _check_runs([mark for line in lines for mark in line.values()])
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    columns = len(grid[0])
    size = (4.3 * columns + max(20, *map(len, names)) * LETTER + 0.7, 3.0 * len(grid) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    subplots = figure.subplots(len(grid), columns, squeeze=False, sharey="row")
    for row, shown in zip(subplots, grid, strict=True):
        for axes, panel in zip(row, shown, strict=True):
            _draw_panel(axes, panel, names)
            axes.tick_params(labelleft=True)
        low, high = within_percent(row[0].get_ylim())
        if any(axes.texts for axes in row):
            # Nothing is drawn where "missing" is written.
            low -= 0.18 * (high - low)
        row[0].set_ylim(low, high)
        for axes in row[1:]:
            axes.set_ylabel("")
    paper = any(_has_paper(axes) for axes in figure.axes)
    _add_legend(figure, names, reading, paper=paper, right=True)
    save(figure, path)


def save_heat_map(
    means: np.ndarray,
    texts: Sequence[Sequence[str]],
    path: Path,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    xlabel: str,
    ylabel: str,
    label: str,
    title: str = "",
) -> None:
    """Draw a colour and a text in each cell; the first row is at the bottom.

    Args:
        means: (r, c) in the unit of `label`; NaN where there is none, which is hatched.
        texts: (r, c) lines for each cell.
        path: of the PNG file.
        rows: (r,) names on the y axis.
        columns: (c,) names on the x axis.
        xlabel: what the columns are, with the unit.
        ylabel: what the rows are, with the unit.
        label: quantity and unit.
        title: above the axes.

    Raises:
        ValueError: there is no mean.
    """
    if np.isnan(means).all():
        raise ValueError("no cell has a mean: nothing to draw.")
    size = (2.4 + max(3.0, 1.25 * len(columns)), 1.5 + max(2.4, 0.85 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap="cividis", origin="lower", aspect="auto")
    figure.colorbar(image, label=label)
    for y, x in np.ndindex(means.shape):
        box, colour = None, "white"
        if np.isnan(means[y, x]):
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="#eeeeee",
                                     edgecolor="#999999", hatch="///", lw=0))  # fmt: skip
            # Letters on hatching cannot be read.
            box, colour = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}, DARK
        elif np.dot(image.cmap(image.norm(means[y, x]))[:3], LUMINANCE) > 0.45:
            colour = "black"
        axes.text(x, y, texts[y][x], ha="center", va="center", fontsize="small", color=colour,
                  bbox=box)  # fmt: skip
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    save(figure, path)


def save_embeddings(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """Draw t-SNE maps, four in a row at most: for each title, points (n, 2) and labels (n,)."""
    figure, grid = _grid(len(panels), 3.4, 3.4, extra=0.5)
    for axes, (title, (points, labels)) in zip(grid, panels.items(), strict=True):
        for number, name in enumerate(classes):
            chosen = points[labels == number]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=9, marker=MARKERS[number % len(MARKERS)],
                         color=CLASS_COLOURS[number % 10], linewidths=0, label=name)  # fmt: skip
        axes.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(10, len(names)),
                  fontsize="small", markerscale=1.8, handletextpad=0.1)  # fmt: skip
    save(figure, path)


def tsne(features: np.ndarray) -> np.ndarray:
    """t-SNE (n, 2) of features (n, d), for `save_embeddings`; nothing in it is random."""
    # scikit-learn takes seconds to import.
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(features) - 1) / 3)
    points: np.ndarray = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(
        features
    )
    return points


def within_percent(limits: tuple[float, float]) -> tuple[float, float]:
    """Cut an axis at 0% and 100%, with a margin."""
    return max(limits[0], -PERCENT_MARGIN), min(limits[1], 100 + PERCENT_MARGIN)


def fold(text: str, width: int = 28) -> str:
    """Break a title into lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _draw_panel(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    axes.set(xlabel=panel.xlabel, ylabel=panel.ylabel)
    places = dict(sorted({place for line in panel.lines.values() for place in line}))
    if not places:
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        return
    logarithmic = min(places) > 0 and max(places) >= LOGARITHMIC * min(places)
    scaled = {x: math.log10(x) if logarithmic else x for x in places}
    low, high = min(scaled.values()), max(scaled.values())
    width = high - low or 1.0
    gap = min((b - a for a, b in itertools.pairwise(scaled.values())), default=width)
    step = min(SHIFT * width, CROWD * gap / len(names))
    for number, name in enumerate(names):
        shift = step * (number - (len(names) - 1) / 2)
        line = sorted(panel.lines.get(name, {}).items())
        # NaN leaves a gap where nothing is finished.
        means = [float(np.mean(mark.runs)) if len(mark.runs) else math.nan for _, mark in line]
        axes.plot([scaled[x] + shift for (x, _), _ in line], means, color=look(number)[0], lw=1.2,
                  ls=STYLES[number % len(STYLES)])  # fmt: skip
        for (x, _), mark in line:
            _draw_mark(axes, mark, scaled[x] + shift, look(number), dash=DASH * width)
    # From the largest down, the numbers whose labels do not run into each other.
    ticks: list[float] = []
    for x in reversed(scaled):
        if not ticks or scaled[ticks[-1]] - scaled[x] >= APART * width:
            ticks.append(x)
    axes.set_xticks([scaled[x] for x in ticks[::-1]], [places[x] for x in ticks[::-1]])
    room = 0.06 * width + step * len(names) / 2
    axes.set_xlim(low - room, high + room)
    axes.grid(alpha=0.3)


def _draw_mark(
    axes: Axes,
    mark: Mark,
    place: float,
    style: tuple[str, str],
    *,
    dash: float,
    shift: float = 0.0,
    upright: bool = True,
) -> None:
    """Draw a mark at a place of the x axis if `upright`, else of the y axis.

    Args:
        dash: half of the length of the dash for the paper's value.
        shift: from the place to the single runs.
    """
    if mark.paper is not None:
        ends, both = [place - dash, place + dash], [mark.paper, mark.paper]
        line = (ends, both) if upright else (both, ends)
        # Under every marker, which it must not hide, and white around it.
        axes.add_line(Line2D(*line, color="white", lw=3.6, zorder=1.4))
        axes.add_line(Line2D(*line, color="black", lw=1.8, zorder=1.5, gid=PAPER))
    if not len(mark.runs):
        where = (place, 0.02) if upright else (0.01, place)
        axes.text(*where, "missing", color="#555555", fontsize=7, rotation=90 if upright else 0,
                  ha="center" if upright else "left", va="bottom" if upright else "center",
                  transform=axes.get_xaxis_transform() if upright
                  else axes.get_yaxis_transform())  # fmt: skip
        return
    edge: dict[str, Any] = {"color": style[0], "marker": style[1], "mec": "black", "ls": "none"}
    summary = summarise(mark.runs)
    mean, runs = summary.mean, list(mark.runs)
    interval = mark.interval
    if interval is None:
        beside = [place + shift] * len(runs)
        axes.plot(*((beside, runs) if upright else (runs, beside)), ms=3, mew=0.3, alpha=0.7,
                  **edge)  # fmt: skip
        if summary.interval is not None:
            interval = (mean - summary.interval, mean + summary.interval)
    at = place - shift / 2
    x, y = (at, mean) if upright else (mean, at)
    if interval is not None:
        error = [[max(0.0, mean - interval[0])], [max(0.0, interval[1] - mean)]]
        # The bar is dark because yellow cannot be seen on white, and under the marker.
        axes.errorbar([x], [y], error if upright else None, None if upright else error, ecolor=DARK,
                      elinewidth=1.1, capsize=2.5, fmt="none", zorder=2.5)  # fmt: skip
    axes.plot([x], [y], ms=6, mew=0.8, zorder=3, **edge)


def _add_legend(
    figure: Figure, names: Sequence[str], reading: str, *, paper: bool, right: bool
) -> None:
    """Name lines on the right of the axes, or methods below them, where no marker is hidden."""
    handles = []
    for number in range(len(names)):
        colour, marker = look(number)
        style = STYLES[number % len(STYLES)] if right else "none"
        handles.append(Line2D([], [], color=colour, marker=marker, ls=style, mec="black", ms=6))
    shown = [name or "mean of all runs" for name in names]
    if paper:
        handles.append(Line2D([], [], color="black", lw=1.8))
        shown.append("the paper's value")
    figure.legend(handles, shown, loc="outside right upper" if right else "outside lower center",
                  fontsize="small", frameon=False, alignment="left", title=reading,
                  title_fontsize="small", ncols=1 if right else 2, handlelength=2.6)  # fmt: skip


def _has_paper(axes: Axes) -> bool:
    return any(line.get_gid() == PAPER for line in axes.lines)


def _check_runs(marks: Sequence[Mark]) -> None:
    if not any(len(mark.runs) for mark in marks):
        raise ValueError("there is no run: nothing to draw.")


def _grid(
    count: int, width: float, height: float, *, extra: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, four in a row at most; sizes are of one, in inches."""
    rows = -(-count // MOST_PANELS_IN_A_ROW)
    columns = -(-count // rows)
    figure = Figure(figsize=(width * columns, height * rows + extra), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.remove()
    return figure, grid[:count]


def _row(figure: Figure, count: int) -> list[Axes]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))
