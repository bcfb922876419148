"""The attacks that only the gradient-masking checks need."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from .attack.pgd import perturb
from .budgets import make_budget
from .protocols import Protocol, Stage, descend

MANY_STEPS = 50
RESTARTS = 5
SQUARE_QUERIES = 1000


class MarginView(nn.Module):
    """Turns the cross-entropy of an attack into the margin of the logits.

    The margin of an image is m = z_y - max over j != y of z_j (Carlini & Wagner 2017). Of the two
    logits [m - stop_gradient(m), 0] with label 0, the cross-entropy is log 2 and its gradient is
    -1/2 that of m, whatever the scale of the logits: an attack on cross-entropy, given label 0,
    lowers the margin and cannot be blinded by a saturated softmax.

    Args:
        view: images (n, 3, h, w) -> logits (n, K), K >= 2.
        labels: (n,) of the images that will be passed.
    """

    def __init__(self, view: nn.Module, labels: Tensor) -> None:
        super().__init__()
        self.view = view
        self.labels = labels
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return (n, 2) logits, both zero."""
        logits = self.view(images)
        others = logits.scatter(1, self.labels[:, None], -math.inf).amax(1)
        margin = logits.gather(1, self.labels[:, None]).squeeze(1) - others
        return torch.stack([margin - margin.detach(), torch.zeros_like(margin)], dim=1)


def descend_margin(
    steps: int, view: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, seed: int
) -> Tensor:
    """Run PGD on the margin, from the random start that `descend` takes with the same seed."""
    margins = MarginView(view, labels)
    budget = make_budget(norm, eps, steps=steps)
    return perturb(margins, images, torch.zeros_like(labels), budget, seed=seed)


def pgd_protocol(restarts: int = 1) -> Protocol:
    """PGD-50 on cross-entropy, each restart on what the ones before left."""
    attack = partial(descend, MANY_STEPS)
    stages = tuple(Stage(f"restart {number}", attack, 2 * MANY_STEPS) for number in range(restarts))
    return Protocol(f"pgd{MANY_STEPS}x{restarts}", f"PGD-{MANY_STEPS}", attack, stages)


def margin_protocol() -> Protocol:
    """PGD-50 on the margin."""
    return Protocol(
        f"margin{MANY_STEPS}", f"margin PGD-{MANY_STEPS}", partial(descend_margin, MANY_STEPS)
    )


def unbounded_protocol() -> Protocol:
    """PGD-50 on cross-entropy and then on the margin."""
    cross_entropy, margin = pgd_protocol(), margin_protocol()
    stages = (*cross_entropy.parts(), *margin.parts())
    return Protocol("unbounded", f"PGD-{MANY_STEPS}", cross_entropy.attack, stages)
