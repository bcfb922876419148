"""Learning-rate schedules as functions of the share of training that is done.

They keep no state, so that a resumed run has nothing to restore.
"""

from __future__ import annotations

import math

EXPONENTIAL_END = 0.01


def cosine(done: float) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return 0.5 * (1 + math.cos(math.pi * done))


def linear(done: float) -> float:
    """Fall from 1 to 0 along a line."""
    return 1 - done


def constant(done: float) -> float:
    """Stay at 1."""
    return 1.0


def exponential(done: float) -> float:
    """Fall from 1 to 0.01 by a constant factor a step (the paper gives no rate)."""
    return EXPONENTIAL_END**done


SCHEDULES = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "exponential": exponential,
}
