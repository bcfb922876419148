"""Budgets: what is read, filled in, written and refused."""

import math

import pytest

from core_tuning.errors import UserError
from core_tuning.robustness.budgets import Budget, describe_eps, make_budget, parse_eps


@pytest.mark.parametrize(
    ("text", "eps"),
    [("0.5", 0.5), ("8/255", 8 / 255), (" 1 / 4 ", 0.25), ("0", 0.0), ("1e-3", 1e-3)],
)
def test_eps_is_read(text, eps):
    assert parse_eps(text) == eps


@pytest.mark.parametrize(
    "text", ["8/0", "abc", "", "/", "8/", "1/2/3", "-0.1", "-8/255", "nan", "inf", "1/nan", "inf/2"]
)
def test_eps_that_is_refused(text):
    with pytest.raises(UserError, match=r"such as 0\.5 or") as caught:
        parse_eps(text)
    assert text in str(caught.value)


def test_step_size_by_default():
    assert make_budget("l2", 0.5) == Budget("l2", 0.5, 10, 0.125)
    assert make_budget("linf", 8 / 255, steps=5).step_size == pytest.approx(4 / 255)
    assert make_budget("linf", 0.1, step_size=0.02).step_size == 0.02
    assert make_budget("linf", 0.0) == Budget("linf", 0.0, 10, 0.0)
    assert make_budget("l2", 3.0).eps == 3.0


@pytest.mark.parametrize(
    ("norm", "eps", "options", "words"),
    [
        ("Linf", 0.1, {}, r"'Linf'.*l2, linf.*did you mean 'linf'"),
        ("l3", 0.1, {}, r"'l3'.*did you mean 'l2'"),
        ("xyz", 0.1, {}, r"'xyz': expected one of l2, linf\.$"),
        ("l2", -0.5, {}, r"eps is -0.5: expected"),
        ("l2", math.nan, {}, r"eps is nan"),
        ("l2", math.inf, {}, r"eps is inf"),
        ("linf", 8.0, {}, r"eps is 8 .*larger than the range.*8/255"),
        ("l2", 0.5, {"steps": 0}, r"steps is 0: expected at least 1"),
        ("l2", 0.5, {"step_size": 0.0}, r"step size is 0.0: expected a number above 0"),
        ("l2", 0.5, {"step_size": -1.0}, r"step size is -1.0"),
        ("l2", 0.5, {"step_size": math.nan}, r"step size is nan"),
    ],
)
def test_budgets_that_are_refused(norm, eps, options, words):
    with pytest.raises(UserError, match=words):
        make_budget(norm, eps, **options)


@pytest.mark.parametrize(
    ("norm", "eps", "written"),
    [
        ("linf", 8 / 255, "8/255"),
        ("linf", 0.5 / 255, "0.5/255"),
        ("linf", 12.5 / 255, "12.5/255"),
        ("linf", 0.1, "0.1"),
        ("linf", 1.0, "1"),
        ("linf", 0.0, "0"),
        ("linf", 0.0123, "0.0123"),
        ("l2", 0.5, "0.5"),
        ("l2", 8 / 255, "0.0313725"),
    ],
)
def test_eps_is_written_as_the_field_does(norm, eps, written):
    assert describe_eps(norm, eps) == written
    assert parse_eps(written) == pytest.approx(eps, rel=1e-5)
