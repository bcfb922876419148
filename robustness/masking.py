"""Signs of masked gradients: the attacks on a model that `masking_checks` judges.

All attack the same images, each those that the model gets right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from core_tuning.errors import UserError

from .attack.autoattack import check_pyautoattack
from .attack.pgd import check_torchattacks
from .attack.view import AttackView
from .budgets import describe_eps
from .masking_attacks import (
    RESTARTS,
    SQUARE_QUERIES,
    margin_protocol,
    pgd_protocol,
    unbounded_protocol,
)
from .masking_checks import (
    Check,
    black_box_check,
    effort_check,
    margin_check,
    monotone_check,
    single_step_check,
    unbounded_check,
    zero_gradients_check,
)
from .measure import measure
from .protocols import PROTOCOLS, Protocol, choose_protocol

__all__ = ["Check", "check_masking"]

EPS_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def check_masking(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    *,
    seed: int,
    batch_size: int,
    on_progress: Callable[[str], None] | None = None,
) -> list[Check]:
    """Look for signs of masked gradients in a model, at one budget.

    Costs at most some 500 gradient steps and 1000 forward passes an image; what an attack has
    brought down its restarts and later queries leave alone, so fragile models cost far less.

    Args:
        model: images in [0, 1] -> logits (n, K), in evaluation mode.
        images: (n, 3, h, w), float32 in [0, 1] or bytes. Some hundred are enough; with fewer than
            50 little can be told from chance.
        labels: (n,) true classes.
        norm: "l2" or "linf".
        eps: above 0; the budget whose robust accuracy is to be trusted.
        seed: of all random numbers; the global generators are left as they were.
        batch_size: images attacked at once.
        on_progress: is told what is about to run.

    Returns:
        Seven checks; `row_checks` makes two more of the report's rows.

    Raises:
        UserError: no images, images outside [0, 1], eps 0 or beyond their range, or torchattacks
            or pyautoattack missing.
        ValueError: the model is in training mode.
    """
    check_torchattacks()
    check_pyautoattack()
    if model.training:
        raise ValueError("the model is in training mode: call its eval() first.")
    if len(images) == 0 or eps <= 0:
        raise UserError(
            f"The masking checks got {len(images)} images and eps {eps:g}: expected at least one "
            "image and an eps above 0."
        )
    probe = _Probe(model, images, labels, norm, seed, batch_size, on_progress or _be_silent)
    single, zero_single = probe.run(PROTOCOLS["fgsm"], eps)
    by_eps = {0.0: probe.clean}
    for factor in EPS_FACTORS:
        radius = min(factor * eps, probe.largest_eps)
        by_eps[radius], zero = probe.run(PROTOCOLS["pgd10"], radius)
        if factor == 1:
            pgd10, zero_pgd10 = by_eps[radius], zero
    first, _ = probe.run(pgd_protocol(), eps)
    after_restarts = probe.run_on(pgd_protocol(RESTARTS - 1), eps, first)
    margin, _ = probe.run(margin_protocol(), eps)
    squared, _ = probe.run(choose_protocol("square", 0, queries=SQUARE_QUERIES), eps)
    unbounded, _ = probe.run(unbounded_protocol(), probe.largest_eps)
    return [
        unbounded_check(unbounded, f"{probe.largest_eps:.4g}"),
        monotone_check(by_eps, partial(describe_eps, norm)),
        effort_check(pgd10, first, after_restarts),
        single_step_check(single, pgd10),
        black_box_check(squared, after_restarts),
        zero_gradients_check(zero_single, zero_pgd10),
        margin_check(margin, first),
    ]


class _Probe:
    """Runs protocols on the same images of one model."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        norm: str,
        seed: int,
        batch_size: int,
        say: Callable[[str], None],
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.view = AttackView(model)
        self.norm, self.seed, self.batch_size, self.say = norm, seed, batch_size, say
        self.largest_eps = 1.0 if norm == "linf" else math.sqrt(images[0].numel())
        nothing = Protocol("clean", "no attack", lambda view, images, *_: images)
        self.clean, _ = self.run(nothing, 0.0)

    def run(self, protocol: Protocol, eps: float) -> tuple[Tensor, float]:
        """Return which images (n,) stay right, and the percent of unusable gradients."""
        return self._measure(protocol, eps, self.images, self.labels, self.seed)

    def run_on(self, protocol: Protocol, eps: float, among: Tensor) -> Tensor:
        """Attack some images, (n,) bool, from other random starts; the others stay lost."""
        alive = among.clone()
        if bool(among.any()):
            images, labels = self.images[among], self.labels[among]
            alive[among], _ = self._measure(protocol, eps, images, labels, self.seed + 1)
        return alive

    def _measure(
        self, protocol: Protocol, eps: float, images: Tensor, labels: Tensor, seed: int
    ) -> tuple[Tensor, float]:
        self.say(f"{protocol.title} at eps {describe_eps(self.norm, eps)}")
        found = measure(
            self.model, self.view, images, labels, protocol, self.norm, eps,
            seed=seed, batch_size=self.batch_size,
        )  # fmt: skip
        return found.robust, 100 * (found.zero_gradients or 0.0)


def _be_silent(message: str) -> None:
    pass
