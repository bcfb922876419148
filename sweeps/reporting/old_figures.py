"""Figures as PNG files: confusion matrix, accuracies over seeds, features of images.

pyplot is not used: it would choose a window system for whoever imports this, and keep figures.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from core_tuning.files import write_atomically, writing
from core_tuning.report.summary import summarise

# Okabe and Ito's colours, told apart by colour-blind readers, and their markers in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
# Paul Tol's "muted" scheme and a dark grey: ten classes that colour-blind readers tell apart.
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#555555"),
)
MARKERS = "os^Dv<>PX*"
HATCHES = ("", "///", "...", "xxx", "\\\\\\", "ooo", "|||")
MOST_NAMED_CLASSES = 40
DPI = 150
# The id of the artists that stand for the paper's values.
PAPER = "paper"
# Inches that the grouped figure gives to a method in a group, and to a letter of a name.
SLOT = 0.22
LETTER = 0.085
MOST_EMBEDDINGS_IN_A_ROW = 4
PERCENT_MARGIN = 4.0


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
    figure.colorbar(image, label="images of the true class (%)", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(classes) <= MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 15:
        for i, j in np.argwhere(percent >= 0.5):
            colour = "black" if percent[i, j] > 55 else "white"
            axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=colour)
    save(figure, path)


def save_accuracies(accuracies: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw each method's top-1 (%) over seeds: every run, mean and standard error."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, (name, values) in enumerate(accuracies.items()):
        runs = np.asarray(values, dtype=float)
        colour, marker = look(position)
        offsets = np.linspace(-0.12, 0.12, len(runs)) if len(runs) > 1 else np.zeros(1)
        axes.plot(position + offsets, runs, marker, color=colour, alpha=0.55, ls="none")
        error = runs.std(ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
        axes.errorbar(position + 0.25, runs.mean(), yerr=error, fmt=marker, color=colour,
                      capsize=4, markersize=8, mec="black", label=name)  # fmt: skip
    axes.set_xticks(range(len(accuracies)), accuracies.keys())
    axes.set_xlim(-0.5, len(accuracies) - 0.3)
    axes.set_ylabel("test accuracy, top-1 (%)")
    axes.grid(axis="y", alpha=0.3)
    save(figure, path)


def save_grouped_accuracies(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
    *,
    ylabel: str,
    xlabel: str = "",
    paper: Mapping[str, Mapping[str, float]] | None = None,
    bars: bool = False,
) -> None:
    """Draw each group's methods side by side: every run, mean and 95% interval (Student-t).

    Intervals are cut at 0% and 100%. The figure is as wide as its groups times methods need; more
    than some 40 of them are too wide for a page, and better split.

    Args:
        accuracies: of each group, say a target domain, and each method the runs, in percent. A
            method without runs in a group leaves its place empty, with the word "missing" if the
            group names it.
        path: of the PNG file.
        ylabel: quantity and unit.
        xlabel: what the groups are.
        paper: of each group and method the value to compare with, in percent.
        bars: draw the means as bars from 0, and not as points on an axis that begins anywhere.

    Raises:
        ValueError: if no group has any run.
    """
    methods = list(dict.fromkeys(name for group in accuracies.values() for name in group))
    if not any(len(runs) for group in accuracies.values() for runs in group.values()):
        raise ValueError("no group has any run: nothing to draw.")
    figure = Figure(figsize=grouped_size(list(accuracies), methods), layout="constrained")
    axes = figure.subplots()
    # A method's slot is 1 wide, and half a slot is free on either side of a group.
    stride = len(methods) + 1
    for number, (title, group) in enumerate(accuracies.items()):
        for position, method in enumerate(methods):
            x = number * stride + position
            if len(group.get(method, ())):
                (_draw_bar if bars else _draw_runs)(axes, x, group[method], position)
            elif method in group:
                write_missing(axes, x)
            value = (paper or {}).get(title, {}).get(method)
            if value is not None:
                mark_paper(axes, [x - 0.45, x + 0.45], [value, value])
    axes.set_ylim(within_percent(axes.get_ylim()))
    if bars:
        axes.set_ylim(bottom=0)
    elif axes.texts:
        leave_room(axes)
    middles = [number * stride + (len(methods) - 1) / 2 for number in range(len(accuracies))]
    for middle in middles[1::2]:
        axes.axvspan(middle - stride / 2, middle + stride / 2, color="#f2f2f2", zorder=0)
    axes.set_xticks(middles, list(accuracies))
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-1, len(accuracies) * stride - 1), xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    _add_legend(figure, methods, bars=bars, paper=bool(paper))
    save(figure, path)


def grouped_size(groups: Sequence[str], methods: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches that hold every marker, the names below and the legend."""
    widest = max(map(_width, groups)) * LETTER + 0.3
    legend = max(20, *map(len, methods)) * LETTER + 0.6
    plot = max(3.0, len(groups) * max(SLOT * (len(methods) + 1), widest))
    return plot + legend + 0.8, max(4.0, 0.24 * len(methods) + 1.2)


def mark_paper(axes: Any, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw the line (x, y), two points each, that stands for the paper's value."""
    # Under every marker, which it must not hide; white around it where it lies on a dark bar.
    axes.add_line(Line2D(x, y, color="white", lw=3.6, zorder=1.4))
    axes.add_line(Line2D(x, y, color="black", lw=1.8, zorder=1.5, gid=PAPER))


def paper_handle() -> Line2D:
    """What a legend shows for `mark_paper`."""
    return Line2D([], [], color="black", lw=1.8)


def write_missing(axes: Any, x: float) -> None:
    """Write "missing" at a place without runs."""
    # x in the axes' data, y as a share of their height.
    axes.text(x, 0.02, "missing", rotation=90, ha="center", va="bottom", color="#555555",
              fontsize=7, transform=axes.get_xaxis_transform())  # fmt: skip


def leave_room(axes: Any) -> None:
    """Lower the y axis, so that nothing is drawn where `write_missing` writes."""
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.18 * (high - low), high)


def within_percent(limits: tuple[float, float]) -> tuple[float, float]:
    """Cut an axis at 0% and 100%, which only intervals of few runs exceed, with a margin."""
    return max(limits[0], -PERCENT_MARGIN), min(limits[1], 100 + PERCENT_MARGIN)


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _draw_runs(axes: Any, x: float, values: Sequence[float], position: int) -> None:
    """Draw the runs small on the left of x, and their mean with its interval on the right."""
    colour, marker = look(position)
    edge = {"mec": "black", "color": colour, "marker": marker, "ls": "none"}
    axes.plot([x - 0.3] * len(values), values, ms=3.2, mew=0.3, alpha=0.7, **edge)
    _draw_interval(axes, x + 0.14, values)
    axes.plot([x + 0.14], [summarise(values).mean], ms=6, mew=0.8, zorder=3, **edge)


def _draw_bar(axes: Any, x: float, values: Sequence[float], position: int) -> None:
    """Draw the mean as a bar from 0, with its interval, and the runs small on the left."""
    axes.bar([x], [summarise(values).mean], 0.86, color=look(position)[0], ec="black", lw=0.7,
             hatch=HATCHES[position % len(HATCHES)], zorder=1)  # fmt: skip
    _draw_interval(axes, x + 0.14, values)
    axes.plot([x - 0.25] * len(values), values, marker="o", ls="none", ms=3.2, mew=0.5,
              color="white", mec="black", zorder=3)  # fmt: skip


def _draw_interval(axes: Any, x: float, values: Sequence[float]) -> None:
    summary = summarise(values)
    # The bar is dark because yellow cannot be seen on white, and under the marker.
    if summary.interval is not None:
        axes.errorbar(x, summary.mean, yerr=summary.interval, ecolor="#333333",
                      elinewidth=1.1, capsize=2.5, fmt="none", zorder=2)  # fmt: skip


def _add_legend(figure: Figure, methods: Sequence[str], *, bars: bool, paper: bool) -> None:
    """Name the methods on the right of the axes, where no marker can be hidden."""
    handles: list[Any] = []
    for position in range(len(methods)):
        colour, marker = look(position)
        if bars:
            hatch = HATCHES[position % len(HATCHES)]
            handles.append(Patch(facecolor=colour, edgecolor="black", lw=0.7, hatch=hatch))
        else:
            handles.append(Line2D([], [], color=colour, marker=marker, ls="none", mec="black",
                                  ms=6, mew=0.8))  # fmt: skip
    names = list(methods)
    if paper:
        handles.append(paper_handle())
        names.append("the paper's value")
    figure.legend(handles, names, loc="outside right upper", fontsize="small",
                  title="mean, 95% interval;\nsmall: single runs", title_fontsize="small",
                  alignment="left", frameon=False)  # fmt: skip


def save_embeddings(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """Draw t-SNE maps, four in a row at most: for each title, points (n, 2) and labels (n,)."""
    rows = -(-len(panels) // MOST_EMBEDDINGS_IN_A_ROW)
    columns = -(-len(panels) // rows)
    figure = Figure(figsize=(3.4 * columns, 3.4 * rows + 0.5), layout="constrained")
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[len(panels) :]:
        axes.remove()
    used = zip(grid[: len(panels)], panels.items(), strict=True)
    for axes, (title, (points, labels)) in used:
        for number, name in enumerate(classes):
            chosen = points[labels == number]
            axes.scatter(*chosen.T, s=9, marker=MARKERS[number % len(MARKERS)],
                         color=CLASS_COLOURS[number % 10], linewidths=0, label=name)  # fmt: skip
        axes.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(10, len(names)),
                  fontsize="small", markerscale=1.8, handletextpad=0.1)  # fmt: skip
    save(figure, path)


def look(position: int) -> tuple[str, str]:
    """Colour and marker of a method; the pairs repeat only after 40."""
    return COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, at 150 dots an inch; its folder is made if need be."""
    contents = io.BytesIO()
    figure.savefig(contents, dpi=DPI, format="png")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, contents.getbuffer())
