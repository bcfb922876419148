"""Accuracy against eps, of all parts of a report that measure robustness at several budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..claims import CLEAN
from .arrangement import MEASURE, ROW
from .labels import name_value, norm_label, quantity_name, read_budget
from .lines import Panel, Point
from .model import PartReport


def has_budgets(part: PartReport) -> bool:
    """Whether a part measures robustness at several budgets."""
    return part.command == "robust" and part.cells[MEASURE].nunique() > 1


def budget_panels(parts: Sequence[PartReport]) -> dict[str, list[list[Panel]]]:
    """Arrange accuracies for `save_lines`: rows of panels are clean and each attack, columns norms.

    Args:
        parts: with the same axes apart from the budget, such as one that is trained
            adversarially and one that is not.

    Returns:
        A grid of panels by the remaining axes' values, such as "cifar10"; "" if there are none.
    """
    lines: dict[str, dict[tuple[str, str], dict[str, list[Point]]]] = {}
    names = _line_names(parts)
    for part in parts:
        others = [axis for axis in part.axes if not _repeats_the_budget(part, axis)]
        runs = _runs_of(part)
        for line in part.cells.to_dict("records"):
            norm, eps, written = read_budget(line[MEASURE])
            where = ", ".join(name_value(axis, line[axis]) for axis in others)
            own = lines.setdefault(where, {}).setdefault((line["quantity"], norm), {})
            paper = None if math.isnan(line["paper"]) else line["paper"]
            point = Point(eps, written, runs.get(_key(part, line), []), paper)
            own.setdefault(names[part.name, line[ROW]], []).append(point)
    return {where: _grid(by_panel) for where, by_panel in lines.items()}


def _repeats_the_budget(part: PartReport, axis: str) -> bool:
    return bool((part.cells[axis] == part.cells[MEASURE]).all())


def _line_names(parts: Sequence[PartReport]) -> dict[tuple[str, str], str]:
    """A name for each part's rows; where two parts have the same row, with that of the part."""
    rows = {part.name: list(dict.fromkeys(part.cells[ROW])) for part in parts}
    every = [row for own in rows.values() for row in own]
    return {
        (part, row): f"{row} ({part})" if every.count(row) > 1 else row
        for part, own in rows.items()
        for row in own
    }


def _runs_of(part: PartReport) -> dict[tuple[str, ...], list[float]]:
    """Values of the finished runs of each cell."""
    runs: dict[tuple[str, ...], list[float]] = {}
    for line in part.values.to_dict("records"):
        runs.setdefault(_key(part, line), []).append(line["value"])
    return runs


def _key(part: PartReport, line: Mapping[Any, Any]) -> tuple[str, ...]:
    return tuple(line[name] for name in (ROW, *part.axes, MEASURE, "quantity"))


def _grid(by_panel: dict[tuple[str, str], dict[str, list[Point]]]) -> list[list[Panel]]:
    quantities = list(dict.fromkeys(quantity for quantity, _ in by_panel))
    quantities.sort(key=lambda quantity: quantity != CLEAN)
    norms = list(dict.fromkeys(norm for _, norm in by_panel))
    return [
        [
            Panel(
                f"eps ({norm_label(norm)} norm, images in [0, 1])",
                # On two lines, as a panel is low.
                f"{quantity_name(quantity)} (%)".replace(" ", "\n", 1),
                by_panel.get((quantity, norm), {}),
            )
            for norm in norms
        ]
        for quantity in quantities
    ]
