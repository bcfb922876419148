"""Figures of a run: confusion matrix, accuracies with intervals, features of the test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Okabe and Ito's colours, told apart by colour-blind readers, and their markers in grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
# Paul Tol's "muted" scheme and a dark grey: ten classes that colour-blind readers tell apart.
CLASS_COLOURS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#555555"),
)
MARKERS = "os^Dv<>PX*"
MOST_NAMED_CLASSES = 40


def save_confusion(confusion: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """Draw counts (K, K), rows true and columns predicted, as percent of each row."""
    rows = confusion.sum(axis=1, keepdims=True)
    percent = 100 * confusion / np.maximum(rows, 1)
    side = min(12.0, 3.5 + 0.4 * len(classes))
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
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
    figure, axes = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    for position, (name, values) in enumerate(accuracies.items()):
        runs = np.asarray(values, dtype=float)
        colour = COLOURS[position % len(COLOURS)]
        marker = MARKERS[position % len(MARKERS)]
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


def save_embeddings(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray]], classes: Sequence[str], path: Path
) -> None:
    """Draw t-SNE maps side by side: for each title, points (n, 2) and labels (n,)."""
    columns = len(panels)
    figure, row = plt.subplots(
        1, columns, figsize=(3.4 * columns, 3.9), layout="constrained", squeeze=False
    )
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


def _save(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
