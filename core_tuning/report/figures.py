"""Figures as PNG files: confusion matrix, accuracies over seeds, features of images.

pyplot is not used: it would choose a window system for whoever imports this, and keep figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .summary import summarise

# Okabe and Ito's colours, told apart by colour-blind readers, and their markers in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
# Paul Tol's "muted" scheme and a dark grey: ten classes that colour-blind readers tell apart.
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#555555"),
)
MARKERS = "os^Dv<>PX*"
MOST_NAMED_CLASSES = 40
DPI = 150
# Inches that the grouped figure gives to a method in a group, and to a letter of a name.
SLOT = 0.22
LETTER = 0.085


def save_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw counts (K, K), rows true and columns predicted, as percent of each row."""
    rows = confusion.sum(axis=1, keepdims=True)
    percent = 100 * confusion / np.maximum(rows, 1)
    side = min(12.0, 3.5 + 0.4 * len(classes))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(percent, cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(image, label="images of the true class (%)", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(classes) <= MOST_NAMED_CLASSES:
        axes.set_xticks(range(len(classes)), classes, rotation=60, ha="right")
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 15:
        for i, j in np.argwhere(percent >= 0.5):
            colour = "black" if percent[i, j] > 55 else "white"
            axes.text(j, i, f"{percent[i, j]:.0f}", ha="center", va="center", color=colour)
    _save(figure, path)


def save_accuracies(accuracies: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw each method's top-1 (%) over seeds: every run, mean and standard error."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for position, (name, values) in enumerate(accuracies.items()):
        runs = np.asarray(values, dtype=float)
        colour, marker = _look(position)
        offsets = np.linspace(-0.12, 0.12, len(runs)) if len(runs) > 1 else np.zeros(1)
        axes.plot(position + offsets, runs, marker, color=colour, alpha=0.55, ls="none")
        error = runs.std(ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
        axes.errorbar(position + 0.25, runs.mean(), yerr=error, fmt=marker, color=colour,
                      capsize=4, markersize=8, mec="black", label=name)  # fmt: skip
    axes.set_xticks(range(len(accuracies)), accuracies.keys())
    axes.set_xlim(-0.5, len(accuracies) - 0.3)
    axes.set_ylabel("test accuracy, top-1 (%)")
    axes.grid(axis="y", alpha=0.3)
    _save(figure, path)


def save_grouped_accuracies(
    accuracies: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
    *,
    ylabel: str,
    xlabel: str = "",
) -> None:
    """Draw each group's methods side by side: every run, mean and 95% interval (Student-t).

    The figure is as wide as its groups times methods need; more than some 40 of them are too
    wide for a page, and better split.

    Args:
        accuracies: of each group, say a target domain, and each method the runs, in the unit of
            `ylabel`. A method without runs in a group leaves its place empty.
        path: of the PNG file.
        ylabel: quantity and unit.
        xlabel: what the groups are.

    Raises:
        ValueError: if no group has any run.
    """
    methods = list(dict.fromkeys(name for group in accuracies.values() for name in group))
    if not any(len(runs) for group in accuracies.values() for runs in group.values()):
        raise ValueError("no group has any run: nothing to draw.")
    figure = Figure(figsize=_grouped_size(list(accuracies), methods), layout="constrained")
    axes = figure.subplots()
    # A method's slot is 1 wide, and half a slot is free on either side of a group.
    stride = len(methods) + 1
    for number, group in enumerate(accuracies.values()):
        for position, method in enumerate(methods):
            if len(group.get(method, ())):
                _draw_runs(axes, number * stride + position, group[method], _look(position))
    middles = [number * stride + (len(methods) - 1) / 2 for number in range(len(accuracies))]
    for middle in middles[1::2]:
        axes.axvspan(middle - stride / 2, middle + stride / 2, color="#f2f2f2", zorder=0)
    axes.set_xticks(middles, list(accuracies))
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-1, len(accuracies) * stride - 1), xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y", alpha=0.3)
    _add_legend(figure, methods)
    _save(figure, path)


def _grouped_size(groups: Sequence[str], methods: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches that hold every marker, the names below and the legend."""
    widest = max(map(len, groups)) * LETTER + 0.3
    legend = max(20, *map(len, methods)) * LETTER + 0.6
    plot = max(3.0, len(groups) * max(SLOT * (len(methods) + 1), widest))
    return plot + legend + 0.8, max(4.0, 0.24 * len(methods) + 1.2)


def _draw_runs(axes: Any, x: float, values: Sequence[float], look: tuple[str, str]) -> None:
    """Draw the runs small on the left of x, and their mean with its interval on the right."""
    colour, marker = look
    edge = {"mec": "black", "color": colour, "marker": marker, "ls": "none"}
    axes.plot([x - 0.3] * len(values), values, ms=3.2, mew=0.3, alpha=0.7, **edge)
    summary = summarise(values)
    # The bar is dark because yellow cannot be seen on white, and under the marker.
    if summary.interval is not None:
        axes.errorbar(x + 0.14, summary.mean, yerr=summary.interval, ecolor="#333333",
                      elinewidth=1.1, capsize=2.5, fmt="none", zorder=2)  # fmt: skip
    axes.plot([x + 0.14], [summary.mean], ms=6, mew=0.8, zorder=3, **edge)


def _add_legend(figure: Figure, methods: Sequence[str]) -> None:
    """Name the methods on the right of the axes, where no marker can be hidden."""
    looks = [_look(position) for position in range(len(methods))]
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="none", mec="black", ms=6, mew=0.8)
        for colour, marker in looks
    ]
    figure.legend(handles, methods, loc="outside right upper", fontsize="small",
                  title="mean, 95% interval;\nsmall: single runs", title_fontsize="small",
                  alignment="left", frameon=False)  # fmt: skip


def save_embeddings(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """Draw t-SNE maps side by side: for each title, points (n, 2) and labels (n,)."""
    columns = len(panels)
    figure = Figure(figsize=(3.4 * columns, 3.9), layout="constrained")
    row = figure.subplots(1, columns, squeeze=False)
    for axes, (title, (points, labels)) in zip(row[0], panels.items(), strict=True):
        for number, name in enumerate(classes):
            chosen = points[labels == number]
            axes.scatter(*chosen.T, s=9, marker=MARKERS[number % len(MARKERS)],
                         color=CLASS_COLOURS[number % 10], linewidths=0, label=name)  # fmt: skip
        axes.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    handles, names = row[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(10, len(names)),
                  fontsize="small", markerscale=1.8, handletextpad=0.1)  # fmt: skip
    _save(figure, path)


def _look(position: int) -> tuple[str, str]:
    """Colour and marker of a method; the pairs repeat only after 40."""
    return COLOURS[position % len(COLOURS)], MARKERS[position % len(MARKERS)]


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
