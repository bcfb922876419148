"""What of an evaluation is drawn: accuracy against eps, masking checks, adversarial images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core_tuning.report.figures import (
    Check,
    ImageRow,
    Mark,
    Panel,
    Place,
    save_checks,
    save_images,
    save_lines,
)

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
    if not rows:
        raise ValueError("there are no rows: nothing to draw.")
    panels: dict[tuple[str, str], dict[str, dict[Place, Mark]]] = {}
    for row in rows:
        lines = panels.setdefault((row["norm"], row["space"]), {})
        line = lines.setdefault(row["title"], {(0.0, "0"): _mark(clean)})
        line[row["eps"], describe_eps(row["norm"], row["eps"])] = _mark(row)
    shown = [
        Panel(
            f"eps ({NORM_TITLES[norm]} norm, {space} pixels, images in [0, 1])",
            "images classified right (%)",
            lines,
        )
        for (norm, space), lines in panels.items()
    ]
    save_lines([shown], path, reading="with 95% intervals")


def _mark(counted: Mapping[str, Any]) -> Mark:
    percent = 100 * counted["correct"] / counted["n"]
    return Mark((percent,), interval=(counted["low"], counted["high"]))


def save_masking(checks: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw each masking check's points, and whether it raises a flag.

    Args:
        checks: as dictionaries, with or without points.
        path: of the PNG file.
    """
    shown = [
        Check(
            check["title"],
            check["flagged"],
            [(name, value) for name, value in check["points"]],
            *AXES.get(check["name"], ("", "right under attack (%)")),
        )
        for check in checks
    ]
    save_checks(shown, path)


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
    difference = np.clip(0.5 + factor * change, 0, 1)
    rows = [
        ImageRow("clean", np.moveaxis(clean, 1, -1), titles),
        ImageRow(f"adversarial\n{eps_text}", np.moveaxis(adversarial, 1, -1)),
        ImageRow(f"difference × {factor},\n0 is grey", np.moveaxis(difference, 1, -1)),
    ]
    save_images(rows, path)
