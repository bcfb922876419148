"""Means, errors and intervals against hand-computed ones, and the words about a difference."""

from __future__ import annotations

import math
import statistics

import pytest

from core_tuning.report.summary import difference, summarise

# Student's t at 97.5%, of a printed table, by degrees of freedom.
STUDENT = {1: 12.7062, 2: 4.3027, 4: 2.7764}


def test_three_runs_by_hand():
    """Mean 3, variance (4 + 1 + 9) / 2 = 7, so that the error is sqrt(7 / 3)."""
    summary = summarise([1.0, 2.0, 6.0])
    error = math.sqrt(7 / 3)
    assert summary.mean == pytest.approx(3)
    assert summary.standard_error == pytest.approx(error)
    assert summary.interval == pytest.approx(STUDENT[2] * error, rel=1e-4)
    assert summary.runs == 3
    assert str(summary) == "3.00 ± 1.53"


@pytest.mark.parametrize(
    ("values", "error"), [([0.0, 2.0], 1.0), ([1.0, 2.0, 3.0, 4.0, 5.0], math.sqrt(2.5 / 5))]
)
def test_interval_has_the_table_s_width(values, error):
    summary = summarise(values)
    assert summary.standard_error == pytest.approx(error)
    assert summary.interval == pytest.approx(STUDENT[len(values) - 1] * error, rel=1e-4)


def test_one_run_has_no_spread():
    assert summarise([5.0]) == (5.0, None, None, 1)
    assert str(summarise([5.0])) == "5.00 (one run)"


def test_equal_runs_have_a_spread_of_zero():
    assert summarise([5.0, 5.0]) == (5.0, 0.0, 0.0, 2)
    assert str(summarise([5.0, 5.0])) == "5.00 ± 0.00"


def test_no_runs_are_refused():
    with pytest.raises(statistics.StatisticsError):
        summarise([])


def test_difference_by_hand():
    """Differences 1, 2, 6: 3 points and t * sqrt(7 / 3) = 6.57 on either side."""
    text = difference("CORAL", [80, 81, 82], [81, 83, 88], "ERM")
    assert text == (
        "CORAL minus ERM: +3.00 points, 95% interval [-3.57, +9.57] over 3 seeds: "
        "no difference between CORAL and ERM is shown here."
    )


def test_better_and_worse():
    assert difference("Mixup", [80, 81, 82], [84, 85.1, 85.9], "ERM").endswith(
        "over 3 seeds: Mixup is better than ERM here."
    )
    assert difference("Mixup", [84, 85.1, 85.9], [80, 81, 82], "ERM").endswith(
        "over 3 seeds: Mixup is worse than ERM here."
    )


def test_the_baseline_is_ce_unless_named():
    assert difference("CE-Con", [80], [81]) == (
        "CE-Con minus CE: +1.00 points with one seed, too few to judge."
    )
    assert difference("CE-Con", [80], [81], "ERM") == (
        "CE-Con minus ERM: +1.00 points with one seed, too few to judge."
    )


def test_it_is_paired():
    """The seeds differ by far more than the methods; in another order nothing is shown."""
    baseline, values = [60, 80, 95], [61, 81.1, 95.9]
    assert "is better" in difference("A", baseline, values)
    assert "no difference" in difference("A", baseline, values[::-1])


def test_equal_methods_do_not_differ():
    assert difference("A", [60, 80], [60, 80]).endswith(
        "no difference between A and CE is shown here."
    )


def test_runs_must_match():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        difference("A", [80, 81], [80])
