"""The one table of ranges: what each end holds, and what the sentence says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core_tuning.checks import RANGES, check_range
from core_tuning.errors import UserError


@pytest.mark.parametrize("name", RANGES)
def test_each_range_holds_its_ends_and_nothing_beyond(name):
    allowed = RANGES[name]
    beyond = math.nextafter(allowed.high, math.inf)
    good = [(allowed.low + allowed.high) / 2]
    good += [end for end, out in zip(allowed[:2], allowed[2:4], strict=True) if not out]
    bad = [end for end, out in zip(allowed[:2], allowed[2:4], strict=True) if out]
    bad += [-1, beyond, -math.inf, math.inf, math.nan, 2 * 10**30, True, "1", None, 1j]
    if allowed.whole:
        good = [int(value) for value in good]
        bad = [value for value in bad if not isinstance(value, float)] + [1.5, 1.0]
        bad += [int(allowed.high) + 1]
    for value in good:
        check_range(name, value)
    for value in bad:
        with pytest.raises(UserError, match=f"^{name} is .*: expected .*\\.$"):
            check_range(name, value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("eta", math.nan, "eta is nan: expected at least 0, at most 1e+30."),
        ("eta", "1", "eta is '1': expected a number, at least 0, at most 1e+30."),
        ("eta", True, "eta is True: expected a number, at least 0, at most 1e+30."),
        ("temperature", 0, "temperature is 0: expected at least 1e-30, at most 1e+30."),
        ("epochs", 0, "epochs is 0: expected at least 1, at most 1,000,000."),
        ("epochs", 2.5, "epochs is 2.5: expected a whole number, at least 1, at most 1,000,000."),
        ("alpha", 0, "alpha is 0: expected above 0, at most 1e+30."),
        ("momentum", 1, "momentum is 1: expected at least 0, below 1."),
        ("seed", 2**64, f"seed is {2**64}: expected at least 0, below 2^63."),
    ],
)
def test_sentences(name, value, sentence):
    with pytest.raises(UserError) as refused:
        check_range(name, value)
    assert str(refused.value) == sentence


def test_numbers_of_numpy_are_numbers():
    check_range("eta", np.float32(0.5))
    check_range("epochs", np.int64(3))
