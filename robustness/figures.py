"""Figures of robustness as PNG files: accuracy against eps, masking checks, adversarial images.

pyplot is not used: it would choose a window system for whoever imports this, and keep figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from core_tuning.report.figures import COLOURS, MARKERS, save

from .budgets import describe_eps

# The change between two images may be drawn this many times as large, and no more.
MOST_MAGNIFIED = 100
NORM_TITLES = {"l2": "L2", "linf": "L-infinity"}
AXES = {
    "monotone": ("eps", "right under PGD-10 (%)"),
    "effort": ("gradient steps", "right under attack (%)"),
    "zero_gradients": ("", "unusable gradients (%)"),
    "gap": ("", "PGD-10 minus\nAutoAttack (points)"),
    "square": ("", "taken by Square\nbeyond gradients (points)"),
}
SOUND, FLAGGED = "#0072B2", "#D55E00"


def save_robust_accuracy(
    rows: Sequence[Mapping[str, Any]], clean: Mapping[str, Any], path: Path
) -> None:
    """Draw robust accuracy against eps: a line for each attack, a panel for each norm and space.

    Args:
        rows: with "title", "norm", "eps", "space", "correct", "n", and the 95% interval "low" to
            "high" in percent.
        clean: "correct", "n", "low", "high" without an attack, drawn at eps 0.
        path: of the PNG file.

    Raises:
        ValueError: there are no rows.
    """
    panels = list(dict.fromkeys((row["norm"], row["space"]) for row in rows))
    if not panels:
        raise ValueError("there are no rows: nothing to draw.")
    attacks = list(dict.fromkeys(row["title"] for row in rows))
    figure = Figure(figsize=(4.3 * len(panels) + 0.4, 4.4), layout="constrained")
    for axes, (norm, space) in zip(_row_of_axes(figure, len(panels)), panels, strict=True):
        chosen = [row for row in rows if (row["norm"], row["space"]) == (norm, space)]
        widest = max(row["eps"] for row in chosen)
        for position, attack in enumerate(attacks):
            line = sorted((row for row in chosen if row["title"] == attack), key=_eps)
            if line:
                # Points of one eps stand side by side, so that intervals can be told apart.
                shift = 0.014 * widest * (position - (len(attacks) - 1) / 2)
                _draw_line(axes, [{**clean, "eps": 0.0}, *line], shift, position)
        _draw_point(axes, 0.0, clean, "black", "o", 4)
        ticks = [0.0, *_apart(sorted({row["eps"] for row in chosen}), 0.09 * widest)]
        axes.set_xticks(ticks, ["0", *(describe_eps(norm, eps) for eps in ticks[1:])])
        axes.set(
            title=f"{NORM_TITLES[norm]}, {space} pixels",
            xlabel=f"eps ({NORM_TITLES[norm]} norm, images in [0, 1])",
            ylabel="images classified right (%)",
            ylim=(-3, 103),
        )
        axes.grid(alpha=0.3)
    handles = [
        Line2D([], [], color=_colour(k), marker=MARKERS[k % len(MARKERS)], mec="black", label=name)
        for k, name in enumerate(attacks)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2 * len(panels),
                  fontsize="small", frameon=False)  # fmt: skip
    save(figure, path)


def save_masking(checks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw each masking check's points, and whether it raises a flag.

    Args:
        checks: as dictionaries, with or without points.
        path: of the PNG file.
    """
    columns = min(4, len(checks))
    height = -(-len(checks) // columns)
    figure = Figure(figsize=(3.3 * columns, 3.2 * height), layout="constrained")
    panels = list(figure.subplots(height, columns, squeeze=False).flat)
    for axes, check in zip(panels[: len(checks)], checks, strict=True):
        colour = FLAGGED if check["flagged"] else SOUND
        xlabel, ylabel = AXES.get(check["name"], ("", "right under attack (%)"))
        _draw_check(axes, check["points"], colour, "//" if check["flagged"] else "")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        sign = "FLAG: " if check["flagged"] else ""
        axes.set_title(f"{sign}{_fold(check['title'])}", fontsize="small", color=colour,
                       fontweight="bold" if check["flagged"] else "normal")  # fmt: skip
        if not check["points"]:
            axes.text(0.5, 0.5, "not run", ha="center", va="center", transform=axes.transAxes)
            axes.set(xticks=[], yticks=[])
    for axes in panels[len(checks) :]:
        axes.remove()
    save(figure, path)


def save_examples(
    clean: np.ndarray, adversarial: np.ndarray, titles: Sequence[str], eps_text: str, path: Path
) -> None:
    """Draw images, what an attack made of them, and the magnified difference.

    Args:
        clean: (m, 3, h, w) in [0, 1].
        adversarial: (m, 3, h, w) in [0, 1].
        titles: (m,) over the columns.
        eps_text: of the attack, for the second row's label.
        path: of the PNG file.
    """
    change = adversarial - clean
    # A round number that lets the largest change just reach black or white.
    room = 0.5 / max(float(np.abs(change).max()), 0.5 / MOST_MAGNIFIED)
    factor = max(1, int(room))
    rows = [
        ("clean", clean),
        (f"adversarial\n{eps_text}", adversarial),
        (f"difference × {factor},\n0 is grey", np.clip(0.5 + factor * change, 0, 1)),
    ]
    figure = Figure(figsize=(1.5 * len(clean) + 1.3, 5.0), layout="constrained")
    grid = figure.subplots(3, len(clean), squeeze=False)
    for line, (label, images) in zip(grid, rows, strict=True):
        for axes, image in zip(line, images, strict=True):
            axes.imshow(np.moveaxis(image, 0, -1), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(_fold(title, 18), fontsize="small")
    save(figure, path)


def save_clean_against_robust(
    panels: Mapping[str, Sequence[tuple[str, float, float]]],
    path: Path,
    *,
    xlabel: str = "accuracy without attack (%)",
    ylabel: str = "accuracy under attack (%)",
) -> None:
    """Draw each run as a point, in panels side by side with the same axes.

    Args:
        panels: by title, such as the budget, the method, clean and robust accuracy of each run, in
            percent; one method has the same colour and marker in all of them.
        path: of the PNG file.
        xlabel: quantity and unit.
        ylabel: quantity and unit, with the attack.

    Raises:
        ValueError: there are no points.
    """
    methods = list(dict.fromkeys(name for points in panels.values() for name, _, _ in points))
    if not methods:
        raise ValueError("there are no points: nothing to draw.")
    size = (2.6 + 2.1 * len(panels), 3.4)
    figure = Figure(figsize=size, layout="constrained")
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, points) in zip(row, panels.items(), strict=True):
        for position, method in enumerate(methods):
            runs = [accuracies for name, *accuracies in points if name == method]
            axes.plot([clean for clean, _ in runs], [robust for _, robust in runs],
                      MARKERS[position % len(MARKERS)], color=_colour(position),
                      mec="black", mew=0.6, ms=7, alpha=0.85, label=method)  # fmt: skip
        axes.set_title(title, fontsize="medium")
        axes.margins(0.12)
        axes.grid(alpha=0.3)
    figure.supxlabel(xlabel, fontsize="medium")
    row[0].set_ylabel(ylabel)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small", frameon=False)
    save(figure, path)


def _draw_line(axes: Any, line: Sequence[Mapping[str, Any]], shift: float, position: int) -> None:
    colour, marker = _colour(position), MARKERS[position % len(MARKERS)]
    places = [row["eps"] + (shift if row["eps"] > 0 else 0) for row in line]
    axes.plot(places, [_percent(row) for row in line], color=colour, lw=1.2, alpha=0.8)
    for place, row in zip(places[1:], line[1:], strict=True):
        _draw_point(axes, place, row, colour, marker, 6)


def _draw_point(
    axes: Any, x: float, row: Mapping[str, Any], colour: str, marker: str, size: float
) -> None:
    percent = _percent(row)
    error = [[max(0.0, percent - row["low"])], [max(0.0, row["high"] - percent)]]
    # The bar is dark because yellow cannot be seen on white.
    axes.errorbar([x], [percent], yerr=error, fmt=marker, color=colour, mec="black", mew=0.7,
                  ms=size, ecolor="#333333", elinewidth=1, capsize=2.5)  # fmt: skip


def _draw_check(axes: Any, points: Sequence[Sequence[Any]], colour: str, hatch: str) -> None:
    names, values = [point[0] for point in points], [point[1] for point in points]
    top = max([100.0, *values])
    if any(isinstance(name, str) for name in names):
        # Without the room on either side, one or two bars would fill the panel.
        axes.bar(range(len(names)), values, 0.55, color=colour, ec="black", lw=0.6, hatch=hatch)
        axes.set_xticks(range(len(names)), names, fontsize="small" if len(names) < 3 else 7)
        axes.set_xlim(-0.9, len(names) - 0.1)
        for place, value in enumerate(values):
            axes.text(place, max(value, 0) + 0.01 * top, f"{value:.1f}", ha="center", va="bottom",
                      fontsize="small")  # fmt: skip
    elif names:
        axes.plot(names, values, marker="o", color=colour, ls="--" if hatch else "-")
    axes.set_ylim(min([0.0, *values]) - 3, 1.12 * top)
    axes.grid(axis="y", alpha=0.3)


def _apart(values: Sequence[float], distance: float) -> list[float]:
    """Keep, from the largest down, the values whose labels do not run into each other."""
    kept: list[float] = []
    for value in reversed(values):
        if value >= distance and (not kept or kept[-1] - value >= distance):
            kept.append(value)
    return kept[::-1]


def _fold(text: str, width: int = 28) -> str:
    """Break a title into lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def _row_of_axes(figure: Figure, count: int) -> list[Any]:
    return list(figure.subplots(1, count, squeeze=False)[0])


def _eps(row: Mapping[str, Any]) -> float:
    return row["eps"]


def _percent(row: Mapping[str, Any]) -> float:
    return 100 * row["correct"] / row["n"]


def _colour(position: int) -> str:
    return COLOURS[position % len(COLOURS)]
