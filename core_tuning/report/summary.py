"""Mean and spread over seeds, and what they show of the difference between two methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple


class Summary(NamedTuple):
    """Mean, standard error, half-width of the 95% interval (Student-t), and number of runs.

    The first three have the unit of the values; a single run has neither error nor interval.
    """

    mean: float
    standard_error: float | None
    interval: float | None
    runs: int

    def __str__(self) -> str:
        if self.standard_error is None:
            return f"{self.mean:.2f} (one run)"
        return f"{self.mean:.2f} ± {self.standard_error:.2f}"


def summarise(values: Sequence[float]) -> Summary:
    """Summarise one figure of several runs; a single run has no spread.

    Raises:
        statistics.StatisticsError: if there are no values.
    """
    runs = len(values)
    mean = statistics.fmean(values)
    if runs == 1:
        return Summary(mean, None, None, 1)
    error = statistics.stdev(values) / math.sqrt(runs)
    return Summary(mean, error, interval_factor(runs) * error, runs)


@cache
def interval_factor(runs: int) -> float:
    """Half-width of the 95% interval (Student-t) in standard errors; NaN for less than two runs."""
    if runs < 2:
        return math.nan
    # A plain run has one seed and need not wait for scipy.
    from scipy.special import stdtrit

    return float(stdtrit(runs - 1, 0.975))


def interval_text(values: Sequence[float], sign: str = "") -> str:
    """Mean and half of the 95% interval as text, such as "54.37 ± 1.92"; "-" without values.

    Args:
        values: of the runs.
        sign: "+" writes the sign of a positive mean too.
    """
    if not values:
        return "-"
    summary = summarise(values)
    shown = f"{summary.mean:{sign}.2f}"
    return shown if summary.interval is None else f"{shown} ± {summary.interval:.2f}"


def difference(
    title: str,
    baseline: Sequence[float],
    values: Sequence[float],
    baseline_title: str = "CE",
) -> str:
    """Say how a method differs from a baseline, whichever way it falls.

    The comparison is paired: run i of both must share its seed, and with it split, initial
    weights and batches. Differences are taken run by run and their 95% interval (Student-t) is
    judged, so that what a seed does to both methods alike does not widen it.

    Args:
        title: of the method.
        baseline: (n,) of the baseline's runs in percent, where more is better.
        values: (n,) of the method's runs, in the same order of seeds.
        baseline_title: of the baseline.

    Raises:
        ValueError: if the two differ in length, or hold nothing.
    """
    summary = summarise([value - base for value, base in zip(values, baseline, strict=True)])
    said = f"{title} minus {baseline_title}: {summary.mean:+.2f} points"
    if summary.interval is None:
        return f"{said} with one seed, too few to judge."
    low, high = summary.mean - summary.interval, summary.mean + summary.interval
    if low > 0:
        verdict = f"{title} is better than {baseline_title} here"
    elif high < 0:
        verdict = f"{title} is worse than {baseline_title} here"
    else:
        verdict = f"no difference between {title} and {baseline_title} is shown here"
    return f"{said}, 95% interval [{low:+.2f}, {high:+.2f}] over {summary.runs} seeds: {verdict}."
