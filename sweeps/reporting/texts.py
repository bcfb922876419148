"""What a cell is in words, wherever it is shown: on the page, in tables and in heat maps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

# A cell without a finished run, and a combination that nobody asked for.
MISSING = "missing"
ABSENT = "–"


class CellText(NamedTuple):
    """The words of a cell; "" is what it lacks.

    Attributes:
        mean: such as "54.41"; or `MISSING`, or `ABSENT`.
        spread: half of the 95% interval, such as "± 4.85".
        runs: that are finished, such as "3" or "2 of 3".
        paper: the paper's number, such as "paper 71.68".
        paper_spread: its standard error, such as "± s.e. 0.53".
        difference: mean less paper, such as "+1.00".
    """

    mean: str
    spread: str
    runs: str
    paper: str
    paper_spread: str
    difference: str

    def measured(self) -> str:
        """Mean, half of the 95% interval and runs, on one line."""
        return _joined(self.mean, self.spread, f"({self.runs})" if self.runs else "")

    def printed(self) -> str:
        """The paper's number and its standard error, on one line."""
        return _joined(self.paper, self.paper_spread)


def cell_text(cell: Mapping[str, Any]) -> CellText:
    """The words of a cell.

    Args:
        cell: a line of `PartReport.cells`; mean, interval, n, expected, paper and
            paper_standard_error are read.
    """
    n, expected, mean, paper = (cell[key] for key in ("n", "expected", "mean", "paper"))
    if not expected and not n:
        return CellText(ABSENT, "", "", "", "", "")
    return CellText(
        mean=f"{mean:.2f}" if n else MISSING,
        spread=_number("± ", cell["interval"]),
        runs=f"{n}" if n == expected else f"{n} of {expected}",
        paper=_number("paper ", paper),
        paper_spread=_number("± s.e. ", cell["paper_standard_error"]),
        difference="" if not n or math.isnan(paper) else f"{mean - paper:+.2f}",
    )


def _number(what: str, number: float) -> str:
    return "" if math.isnan(number) else f"{what}{number:.2f}"


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))
