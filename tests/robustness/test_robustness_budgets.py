"""Budgets: what is read, filled in, written and refused."""

import math

import pytest

from core_tuning.errors import UserError
from core_tuning.robustness.budgets import (
    Budget,
    beyond_usual,
    describe_eps,
    make_budget,
    parse_eps,
)


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
        ("Linf", 0.1, {}, r"'Linf': did you mean 'linf'"),
        ("l3", 0.1, {}, r"'l3': did you mean 'l2'"),
        ("xyz", 0.1, {}, r"'xyz': expected one of l2, linf\.$"),
        ("l2", -0.5, {}, r"eps is -0.5: expected"),
        ("l2", math.nan, {}, r"eps is nan"),
        ("l2", math.inf, {}, r"eps is inf"),
        ("linf", 8.0, {}, r"eps is 8 .*larger than the range.*8/255"),
        ("l2", 1e-46, {}, r"eps is 1e-46: expected 0 or a number of at least 1e-12"),
        ("l2", 0.5, {"steps": 0}, r"steps is 0: expected 1 to 10000"),
        ("l2", 0.5, {"steps": 10**9}, r"steps is 1000000000: expected 1 to 10000"),
        ("l2", 0.5, {"step_size": 0.0}, r"step size is 0: expected a number above 0"),
        ("l2", 0.5, {"step_size": -1.0}, r"step size is -1"),
        ("l2", 0.5, {"step_size": 1e39}, r"step size is 1e\+39: .* at most 1000"),
        ("l2", 0.5, {"step_size": math.nan}, r"step size is nan"),
    ],
)
def test_budgets_that_are_refused(norm, eps, options, words):
    with pytest.raises(UserError, match=words):
        make_budget(norm, eps, **options)


@pytest.mark.parametrize(
    ("norm", "eps", "size", "limit"),
    [
        ("l2", 7.7, (224, 224), None),  # 2% of sqrt(3 224 224) = 7.76
        ("l2", 7.8, (224, 224), "above 7.76, 2% of sqrt(3hw) at 224x224 pixels"),
        ("l2", 1.2, (32, 32), "above 1.11"),
        ("l2", 1.2, (32, 64), None),
        ("linf", 32 / 255, (8, 8), None),
        ("linf", 33 / 255, (8, 8), "eps is 33/255 in the linf norm, above 32/255 at 8x8 pixels"),
    ],
)
def test_an_eps_beyond_the_usual(norm, eps, size, limit):
    found = beyond_usual(norm, eps, size)
    assert limit in found if limit else found == ""


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
