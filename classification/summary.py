"""Mean and spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


class Summary(NamedTuple):
    """Mean, standard error, half-width of the 95% interval (Student-t), and number of runs."""

    mean: float
    standard_error: float | None
    interval: float | None
    runs: int

    def __str__(self) -> str:
        if self.standard_error is None:
            return f"{self.mean:.2f} (one run)"
        return f"{self.mean:.2f} ± {self.standard_error:.2f}"


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one figure of several runs; a single run has no spread."""
    runs = len(values)
    mean = statistics.fmean(values)
    if runs == 1:
        return Summary(mean, None, None, 1)
    error = statistics.stdev(values) / math.sqrt(runs)
    return Summary(mean, error, float(stats.t.ppf(0.975, runs - 1)) * error, runs)
