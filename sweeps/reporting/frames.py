"""The frames of a part: a line a run, and a line a cell with mean, interval and the paper's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core_tuning.report.summary import interval_factor

from .model import PartReport

_CELL = ("measure", "quantity")
_NUMBERS = ("mean", "standard_error", "interval", "n", "expected", "paper",
            "paper_standard_error", "difference")  # fmt: skip
# Of the columns of the CSV files.
RESERVED = ("part", "command", "id", "seed", "row", "value", *_CELL, *_NUMBERS)


class Line(NamedTuple):
    """A line of a cells frame before anything is known of it.

    Attributes:
        key: row and value of each axis.
        measure, quantity: see `model.PartReport`.
        expected: runs that it would be the mean of.
        paper: what the paper prints; None if it prints nothing.
        paper_standard_error: that it prints.
    """

    key: tuple[str, ...]
    measure: str
    quantity: str
    expected: int
    paper: float | None = None
    paper_standard_error: float | None = None


def make_part(
    name: str, command: str, axes: Sequence[str], lines: Iterable[Line], runs: pd.DataFrame
) -> PartReport:
    """Summarise the values of a part's runs over seeds.

    Args:
        name, command, axes: see `model.PartReport`.
        lines: of the cells, in the order in which they are shown.
        runs: the values, as in `model.PartReport`.
    """
    keys = ["row", *axes, *_CELL]
    grouped = runs.groupby(keys, sort=False)["value"]
    found = pd.DataFrame(
        {"mean": grouped.mean(), "standard_error": grouped.sem(), "n": grouped.size()}
    ).reset_index()
    cells = pd.DataFrame(
        [(*line.key, *line[1:]) for line in lines],
        columns=[*keys, "expected", "paper", "paper_standard_error"],
    ).astype({"expected": int, "paper": float, "paper_standard_error": float})
    cells = cells.merge(found, on=keys, how="left")
    cells["n"] = cells["n"].fillna(0).astype(int)
    cells["interval"] = cells["standard_error"] * cells["n"].map(interval_factor)
    cells["difference"] = cells["mean"] - cells["paper"]
    return PartReport(name, command, tuple(axes), runs, cells[[*keys, *_NUMBERS]])


def runs_frame(rows: Iterable[Mapping[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    """The frame of single runs, with its columns even if it holds nothing."""
    columns = ["id", "seed", "row", *axes, *_CELL, "value"]
    frame = pd.DataFrame(list(rows), columns=columns)
    return frame.astype({"value": float, "seed": int}) if len(frame) else frame


def over_axes(part: PartReport, rows: Sequence[str], cells: pd.DataFrame) -> dict[str, pd.Series]:
    """Each row's mean over its cells, seed by seed.

    Only seeds count whose runs of all these cells are finished.

    Args:
        part: whose values are taken.
        rows: names.
        cells: the lines of `part.cells` that count.

    Returns:
        For each row a series of percent by seed.
    """
    keys = [*part.axes, *_CELL]
    means = {}
    for row in rows:
        own = cells[cells["row"] == row].set_index(keys).index
        table = part.values[part.values["row"] == row].pivot(
            index="seed", columns=keys, values="value"
        )
        complete = table.reindex(columns=own, fill_value=np.nan).dropna()
        means[row] = complete.mean(axis=1) if len(own) else pd.Series(dtype=float)
    return means
