"""Figures of one axis of names, and of two axes of numbers: rows of points, and heat maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from core_tuning.report.summary import summarise

from .old_figures import (
    COLOURS,
    LETTER,
    mark_paper,
    paper_handle,
    save,
    within_percent,
)

# Of Rec. 709: how bright red, green and blue look.
LUMINANCE = (0.2126, 0.7152, 0.0722)
LOOK: dict[str, Any] = {"color": COLOURS[0], "marker": "o", "ls": "none", "mec": "black"}


def save_rows(
    runs: Mapping[str, Sequence[float]],
    path: Path,
    *,
    xlabel: str,
    paper: Mapping[str, float] | None = None,
) -> None:
    """Draw a row for each name: every run, the mean with its 95% interval (Student-t).

    Args:
        runs: of each name in percent, where intervals are cut at 0 and 100; an empty list
            is shown as missing.
        path: of the PNG file.
        xlabel: quantity and unit.
        paper: of each name the value to compare with, shown as a black dash.

    Raises:
        ValueError: no name has a run.
    """
    if not any(len(values) for values in runs.values()):
        raise ValueError("no name has any run: nothing to draw.")
    longest = max(map(len, runs))
    figure = Figure(figsize=(5.5 + LETTER * longest, 1.4 + 0.42 * len(runs)), layout="constrained")
    axes = figure.subplots()
    for y, (name, values) in enumerate(runs.items()):
        if len(values):
            _draw_row(axes, y, values)
        else:
            axes.text(0.01, y, "missing", va="center", color="#555555", fontsize="small",
                      transform=axes.get_yaxis_transform())  # fmt: skip
        value = (paper or {}).get(name)
        if value is not None:
            mark_paper(axes, [value, value], [y - 0.34, y + 0.34])
    axes.set_yticks(range(len(runs)), [name or "all runs" for name in runs])
    axes.set_ylim(len(runs) - 0.4, -0.6)
    axes.set_xlim(within_percent(axes.get_xlim()))
    axes.set_xlabel(xlabel)
    axes.grid(axis="x", alpha=0.3)
    handles = [
        Line2D([], [], ms=7, mew=0.8, **LOOK),
        Line2D([], [], color="#333333", lw=1.3),
        Line2D([], [], ms=3.5, mew=0.3, alpha=0.7, **LOOK),
    ]
    names = ["mean", "95% interval", "single run"]
    if paper:
        handles.append(paper_handle())
        names.append("the paper's value")
    figure.legend(handles, names, loc="outside lower center", ncols=4, fontsize="small",
                  frameon=False)  # fmt: skip
    save(figure, path)


def _draw_row(axes: Any, y: float, values: Sequence[float]) -> None:
    summary = summarise(values)
    axes.plot(values, [y + 0.2] * len(values), ms=3.5, mew=0.3, alpha=0.7, **LOOK)
    if summary.interval is not None:
        axes.errorbar(summary.mean, y - 0.1, xerr=summary.interval, ecolor="#333333",
                      elinewidth=1.3, capsize=3, fmt="none", zorder=2)  # fmt: skip
    axes.plot([summary.mean], [y - 0.1], ms=7, mew=0.8, zorder=3, **LOOK)


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
        if np.isnan(means[y, x]):
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor="#eeeeee",
                                     edgecolor="#999999", hatch="///", lw=0))  # fmt: skip
            # Letters on hatching cannot be read.
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            colour = "#333333"
        else:
            bright = float(np.dot(image.cmap(image.norm(means[y, x]))[:3], LUMINANCE))
            box, colour = None, "black" if bright > 0.45 else "white"
        axes.text(x, y, texts[y][x], ha="center", va="center", fontsize="small", color=colour,
                  bbox=box)  # fmt: skip
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    save(figure, path)
