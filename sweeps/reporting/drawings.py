"""A figure in its file, with what is said about it on the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .arrangement import Arrangement
from .labels import describe_where

POINTS = (
    "Large markers are means, small ones single runs, the lines through them 95% intervals "
    "over runs (Student-t), cut at 0 and 100"
)
BARS = (
    "Bars from 0 are means, small markers single runs, with 95% intervals (Student-t), cut at 100"
)
CELLS = "Cells have mean, half of the 95% interval (Student-t) and number of runs"
DASH = "a black dash is the paper's value"


class Drawing(NamedTuple):
    """A figure in its file, a description for who cannot see it, and a caption."""

    path: Path
    description: str
    caption: str


def describe(
    path: Path,
    arrangement: Arrangement,
    what: str,
    names: Sequence[str],
    reading: str,
    lines: Sequence[Mapping[str, Any]],
) -> Drawing:
    """Say of a figure what it shows, how to read it, and what is missing.

    Args:
        path: of the PNG file.
        arrangement: that it is of.
        what: it shows.
        names: that can be read in it, which only the description repeats.
        reading: one of the sentences above, without its full stop.
        lines: of the arrangement's cells, those that it shows.
    """
    where = describe_where(arrangement)
    what = f"{what[:1].upper()}{what[1:]}{f' ({where})' if where else ''}"
    missing = sum(line["n"] == 0 for line in lines)
    printed = any(not math.isnan(line["paper"]) for line in lines)
    dash = f"; {DASH}" if printed and reading is not CELLS else ""
    gaps = f" Without a finished run: {missing} of {len(lines)} cells." if missing else ""
    return Drawing(path, f"{what}: {listed(names)}", f"{what}. {reading}{dash}.{gaps}")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; a part without rows has one name, which is empty."""
    return "; ".join(name for name in names if name) or "all runs"
