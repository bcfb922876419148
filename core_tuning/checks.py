"""Range checks of hyper-parameters, with the sentence that a user reads."""

from __future__ import annotations

from .errors import UserError

LARGEST_FLOAT32 = 3.4e38


def check_eta(eta: float) -> None:
    if not 0 <= eta <= LARGEST_FLOAT32:
        raise UserError(f"eta is {eta}: expected a number of at least 0, such as 0.1.")


def check_above_zero(name: str, value: float) -> None:
    if not 0 < value <= LARGEST_FLOAT32:
        raise UserError(f"{name} is {value}: expected a number above 0 that float32 can hold.")


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} is {value}: expected a number in [0, 1].")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"{name} is '{value}': expected one of {', '.join(choices)}.")
