"""The figures of a report: which there are, and what is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .arrangement import arrange
from .drawings import DASH, POINTS, Drawing, listed
from .kinds import draw
from .labels import describe_where, quantity_label
from .lines import save_lines
from .model import PartReport, Report
from .robust_figure import budget_panels, has_budgets


class PartFigures(NamedTuple):
    """The figures of a part, a sentence for each that is left out, and how their paths begin."""

    stem: Path
    drawings: list[Drawing]
    left_out: list[str]


def write_figures(report: Report, folder: Path) -> dict[str, PartFigures]:
    """Draw what a paper would show of each part.

    Points or bars by data set or target domain, heat maps of two numeric axes, lines of one, and
    accuracy against eps of all parts that measure robustness at several budgets; that is with the
    first of them.

    Args:
        report: whose figures are drawn.
        folder: for the PNG files; it is made if need be.

    Returns:
        What was drawn and what was not, by the part's name.
    """
    measured = [part for part in report.parts if has_budgets(part)]
    figures: dict[str, PartFigures] = {}
    for number, part in enumerate(report.parts, 1):
        made = PartFigures(folder / f"{number}-{_slug(part.name or report.name)}", [], [])
        figures[part.name] = made
        if not has_budgets(part):
            _draw_part(part, made)
        elif part is measured[0]:
            _draw_budgets(measured, made)
        else:
            made.left_out.append(f"Its accuracies are in the figure of {measured[0].name}.")
    return figures


def _draw_part(part: PartReport, figures: PartFigures) -> None:
    stem = figures.stem
    for number, arrangement in enumerate(arrange(part)):
        if arrangement.is_empty():
            what = ", ".join(filter(None, [quantity_label(arrangement),
                                           describe_where(arrangement)]))  # fmt: skip
            figures.left_out.append(f"No figure of {what}: nothing is finished for it.")
        else:
            figures.drawings.extend(draw(arrangement, stem.with_name(f"{stem.name}-{number}")))


def _draw_budgets(parts: Sequence[PartReport], figures: PartFigures) -> None:
    for number, (where, grid) in enumerate(budget_panels(parts).items()):
        what = f"accuracy against eps{f' of {where}' if where else ''}"
        panels = [panel for row in grid for panel in row]
        points = [point for panel in panels for line in panel.lines.values() for point in line]
        if not any(len(point.runs) for point in points):
            figures.left_out.append(f"No figure of {what}: no run is finished.")
            continue
        path = figures.stem.with_name(f"{figures.stem.name}-eps-{number}.png")
        save_lines(grid, path)
        names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
        what = f"{what[:1].upper()}{what[1:]}, without and under attack"
        dash = f"; {DASH}" if any(point.paper is not None for point in points) else ""
        axis = "The panels of a row share their y axis, which need not begin at 0."
        figures.drawings.append(
            Drawing(path, f"{what}: {listed(names)}", f"{what}. {POINTS}{dash}. {axis}")
        )


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
