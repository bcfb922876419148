"""Range checks of hyper-parameters and options, with the sentence that a user reads.

Every command and every objective reads its ranges from the one table here.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import NamedTuple, TypeGuard

from .errors import UserError

# The float32 of the training steps holds 1e-38 to 3e38; the room is for what is multiplied.
LEAST, LARGEST = 1e-30, 1e30


class Range(NamedTuple):
    """The numbers that an option may be, from `low` to `high`, without these if `above`, `below`.

    An integer of any size is compared exactly; NaN is in no range.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    whole: bool = False

    def fits(self, value: object) -> TypeGuard[Real]:
        """Whether a value is a number of the kind; a bool is none."""
        return isinstance(value, Integral if self.whole else Real) and not isinstance(value, bool)

    def holds(self, value: object) -> bool:
        """Whether a value is a number of this range."""
        if not self.fits(value):
            return False
        number = int(value) if isinstance(value, Integral) else float(value)
        if (self.above and number == self.low) or (self.below and number == self.high):
            return False
        return self.low <= number <= self.high

    def __str__(self) -> str:
        """Say it behind "expected"."""
        low, high = "above" if self.above else "at least", "below" if self.below else "at most"
        return f"{low} {_written(self.low)}, {high} {_written(self.high)}"


def _written(number: float) -> str:
    power = round(math.log2(number)) if number > 2**31 else 0
    return f"2^{power}" if power and number == 2**power else f"{number:,.10g}"


def _count(low: int, high: int) -> Range:
    return Range(low, high, whole=True)


_SHARE = Range(0, 1)
_POSITIVE = Range(0, LARGEST, above=True)
_NON_NEGATIVE = Range(0, LARGEST)
_BELOW_ONE = Range(0, 1, below=True)
# torch takes no larger ones.
_SEED = Range(0, 2**63, below=True, whole=True)

# The upper ends of counts are beyond any use, and below what no memory or integer holds.
RANGES = {
    # Of the objectives.
    "feature_dim": _count(1, 2**20),
    "num_classes": _count(1, 10**7),
    "eta": _NON_NEGATIVE,
    "alpha": _POSITIVE,
    "temperature": Range(LEAST, LARGEST),  # is divided by
    "minimum": _SHARE,
    "lambda_n": _SHARE,
    "lambda_p": _SHARE,
    "projection_dim": _count(1, 2**16),
    "projection_depth": _count(1, 5),
    # Of optimisation.
    "epochs": _count(1, 10**6),
    "steps": _count(1, 10**9),
    "total_steps": _count(1, 10**9),
    "limit_steps": _count(1, 10**9),
    "batch_size": _count(1, 10**6),
    "accumulate": _count(1, 10**6),
    "lr": _POSITIVE,
    "lr_decay": _POSITIVE,
    "momentum": _BELOW_ONE,
    "weight_decay": _NON_NEGATIVE,
    "ema": _BELOW_ONE,
    "dropout": _BELOW_ONE,
    "resnet_dropout": _BELOW_ONE,
    # Of data, runs and machines.
    "fraction": Range(0, 1, above=True),
    "validation": _BELOW_ONE,
    "holdout_fraction": Range(0, 1, above=True, below=True),
    "image_size": _count(1, 4096),
    "eval_every": _count(1, 10**9),
    "evaluate_every": _count(1, 10**9),
    "checkpoint_minutes": Range(0, 1e9),
    "workers": _count(0, 256),
    "square_queries": _count(1, 10**7),
    "adv_weight": _SHARE,
    "eps_warmup": _NON_NEGATIVE,
    "memory": Range(0, 1e6),
    "tflops": _POSITIVE,
    "jobs": _count(1, 10**6),
    "price": _NON_NEGATIVE,
    "every": _POSITIVE,
    "seed": _SEED,
    "seeds": _SEED,
    "hparams_seed": _SEED,
    "trial_seed": _SEED,
}


def check_range(name: str, value: object, label: str | None = None) -> None:
    """Check a value against the range of that name in `RANGES`.

    Args:
        name: a key of `RANGES`.
        value: what was given.
        label: how the sentence calls it; None: by its name.

    Raises:
        UserError: it is no number of the range.
    """
    allowed = RANGES[name]
    if not allowed.holds(value):
        shown = repr(value) if isinstance(value, str) else value
        kind = "" if allowed.fits(value) else "a whole number, " if allowed.whole else "a number, "
        raise UserError(f"{label or name} is {shown}: expected {kind}{allowed}.")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is '{value}': expected one of {', '.join(choices)}.")
