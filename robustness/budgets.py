"""How far an attack may go: norm, eps, number of steps and step size, on images in [0, 1]."""

from __future__ import annotations

import math
from typing import NamedTuple

from core_tuning.errors import UserError
from core_tuning.options import check_name

NORMS = ("l2", "linf")

# Madry et al. (2018): steps that together reach 2.5 times as far as the border of the ball.
REACH = 2.5
MOST_STEPS = 10_000
SMALLEST, LARGEST_STEP = 1e-12, 1000.0
# Of the literature's attacks, the largest: what is larger is meant to be, or in grey levels.
USUAL_LINF = 32 / 255
USUAL_L2_SHARE = 0.02  # of sqrt(3 h w), the largest distance of two images


class Budget(NamedTuple):
    """What an attack may do.

    Attributes:
        norm: "l2" or "linf", of an image's whole perturbation.
        eps: largest norm of a perturbation, of images in [0, 1].
        steps: gradient steps.
        step_size: norm of a step, in the unit of eps.
    """

    norm: str
    eps: float
    steps: int
    step_size: float


def parse_eps(text: str, name: str = "eps") -> float:
    """Read an eps, or a step size: a number such as "0.5", or a fraction such as "8/255".

    Args:
        text: of the number.
        name: begins the sentence that a user reads.

    Raises:
        UserError: it is no number, divided by zero, negative, not finite, or lost in float32.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        eps = float(numerator) / (float(denominator) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        eps, text = math.nan, f"'{text}'"
    # Below the smallest, float32 has only 0 left, by which torchattacks divides.
    if not (eps == 0 or SMALLEST <= eps < math.inf):
        raise UserError(
            f"{name} is {text}: expected 0 or a number of at least {SMALLEST:g}, such as 0.5 or "
            "8/255."
        )
    return eps


def make_budget(
    norm: str, eps: float, *, steps: int = 10, step_size: float | None = None
) -> Budget:
    """Check a budget and fill in its step size.

    Args:
        norm: "l2" or "linf".
        eps: radius of the ball around each image in [0, 1]; 0 leaves the images as they are.
        steps: gradient steps.
        step_size: norm of a step, in the unit of eps; None: 2.5 eps / steps.

    Raises:
        UserError: an unknown norm, eps negative or larger than the range of the images (of L2,
            whose largest distance depends on the image size, `perturb` checks that), a step size
            or a number of steps that makes no step, or too many.
    """
    check_name(norm, NORMS, "There is no norm")
    parse_eps(str(eps))
    if norm == "linf" and eps > 1:
        raise UserError(
            f"eps is {eps:g} in the L-infinity norm, larger than the range [0, 1] of the images: "
            "expected at most 1; if it counts grey levels, write it as a fraction such as 8/255."
        )
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"The number of attack steps is {steps}: expected 1 to {MOST_STEPS}.")
    if step_size is None:
        step_size = REACH * eps / steps
    elif eps > 0 and not SMALLEST <= step_size <= LARGEST_STEP:
        raise UserError(
            f"The step size is {step_size:g}: expected a number above 0 and at most "
            f"{LARGEST_STEP:g}; leave it out for {REACH:g} eps / steps."
        )
    return Budget(norm, eps, steps, step_size)


def check_reach(norm: str, eps: float, values: int) -> None:
    """Check that eps is no larger than the largest distance of two images.

    Args:
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        values: of an image, 3 h w.

    Raises:
        UserError: it is larger.
    """
    largest = math.sqrt(values) if norm == "l2" else 1.0
    if eps > largest:
        raise UserError(
            f"eps is {eps:g} in the {norm} norm, and images of {values} values in [0, 1] are at "
            f"most {largest:g} apart: expected no more."
        )


def beyond_usual(norm: str, eps: float, size: tuple[int, int]) -> str:
    """Begin a sentence on an eps that is larger than those of the literature; "" if it is not.

    Args:
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        size: (height, width) of the images.
    """
    height, width = size
    limit, limit_text = USUAL_LINF, describe_eps("linf", USUAL_LINF)
    if norm == "l2":
        limit = USUAL_L2_SHARE * math.sqrt(3 * height * width)
        limit_text = f"{limit:.3g}, {100 * USUAL_L2_SHARE:g}% of sqrt(3hw)"
    if eps <= limit:
        return ""
    return (
        f"eps is {describe_eps(norm, eps)} in the {norm} norm, above {limit_text} at {height}x"
        f"{width} pixels"
    )


def describe_eps(norm: str, eps: float) -> str:
    """Write eps as the field does: "8/255" for L-infinity where it is such a fraction.

    Short decimals stay decimals, in either norm: 0.1 is 25.5/255, and nobody writes that.
    """
    halves = 2 * 255 * eps
    is_fraction = math.isclose(halves, round(halves), rel_tol=1e-6) and round(halves) > 0
    if norm == "linf" and is_fraction and not math.isclose(eps, round(eps, 2)):
        return f"{round(halves) / 2:g}/255"
    return f"{eps:g}"
