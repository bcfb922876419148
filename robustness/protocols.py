"""The attacks that an evaluation runs, by name, and those of the masking checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attack.autoattack import QUERIES, TARGETS, run_attack
from .attack.pgd import perturb
from .budgets import make_budget

# attack(view, images (n, 3, h, w), labels (n,), norm, eps, seed) -> images (n, 3, h, w)
Attack = Callable[[nn.Module, Tensor, Tensor, str, float, int], Tensor]

# AutoAttack's versions. That for randomised models follows means of the gradient over so many
# forward passes, the "expectation over transformation" of Athalye et al. (2018).
STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
RAND = ("apgd-ce", "apgd-dlr")
EOT_PASSES = 20
# Forward passes that a gradient with respect to the images is worth: there and back.
_GRADIENT = 2


class Stage(NamedTuple):
    """One attack of a protocol.

    Attributes:
        name: of the attack, for the report.
        attack: attack(view, images (n, 3, h, w) in [0, 1], labels (n,), norm, eps, seed) returns
            images (n, 3, h, w) that may be adversarial.
        cost: at most so many forward passes an image, a gradient step counted as two.
    """

    name: str
    attack: Attack
    cost: int = 1


class Protocol(NamedTuple):
    """An attack or a sequence of attacks, the worst of which counts.

    Attributes:
        name: on the command line.
        title: in tables and figures.
        stages: each attacks only what is still classified right after those before it.
        note: how it differs from what its name says, "" if it does not.
    """

    name: str
    title: str
    stages: tuple[Stage, ...]
    note: str = ""


def single_step(
    view: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, seed: int
) -> Tensor:
    """Step from the images by eps along the gradient's sign, or direction for L2.

    Goodfellow et al. (2015), without a random start; nothing depends on the seed.
    """
    with torch.enable_grad():
        start = images.detach().clone().requires_grad_()
        loss = F.cross_entropy(view(start), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, start)
    if norm == "linf":
        step = gradient.sign()
    else:
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        step = torch.where(length > 0, gradient / length, torch.zeros_like(gradient))
    return (images + eps * step).clamp(0, 1)


def descend(
    steps: int, view: nn.Module, images: Tensor, labels: Tensor, norm: str, eps: float, seed: int
) -> Tensor:
    """Run projected gradient descent once, from a random start, with steps of 2.5 eps / steps."""
    return perturb(view, images, labels, make_budget(norm, eps, steps=steps), seed=seed)


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
    return descend(
        steps, MarginView(view, labels), images, torch.zeros_like(labels), norm, eps, seed
    )


def pgd(
    name: str, title: str, steps: int, *, restarts: int = 1, attack: Callable[..., Tensor] = descend
) -> Protocol:
    """PGD on cross-entropy or, by `descend_margin`, on the margin, from so many random starts."""
    stage = Stage("", partial(attack, steps), steps * _GRADIENT)
    stages = tuple(stage._replace(name=f"restart {number}") for number in range(restarts))
    return Protocol(name, title, stages)


def _part(name: str, queries: int = QUERIES, version: str = "standard") -> Stage:
    iterations = 100 * (EOT_PASSES if version == "rand" else 1)
    costs = {
        "apgd-ce": iterations * _GRADIENT,
        "apgd-dlr": iterations * _GRADIENT,
        "apgd-t": TARGETS * iterations * _GRADIENT,
        # Each iteration looks at the new image's class as well.
        "fab-t": TARGETS * iterations * (_GRADIENT + 1),
        "square": queries,
    }
    attack = partial(run_attack, name, queries=queries, version=version)
    return Stage(name, attack, costs[name])


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("fgsm", "FGSM (one step)", (Stage("fgsm", single_step, _GRADIENT),)),
        pgd("pgd10", "PGD-10 (paper protocol)", 10),
        pgd("pgd50x10", "PGD-50, 10 restarts", 50, restarts=10),
        Protocol("square", "Square (black box)", (_part("square"),)),
        Protocol("autoattack", "AutoAttack standard", tuple(map(_part, STANDARD))),
    )
}
# Those that follow the gradient of the cross-entropy alone, whose zeros say something.
GRADIENT_PROTOCOLS = ("fgsm", "pgd10", "pgd50x10")


def choose_protocol(
    name: str, num_classes: int, *, queries: int = QUERIES, is_randomised: bool = False
) -> Protocol:
    """Return a protocol as it runs on a model of so many classes.

    The targeted difference-of-logits-ratio loss of APGD-T divides by the third and fourth largest
    logit, and the untargeted one of APGD-DLR by the third largest: they need four and three
    classes.

    Args:
        name: a key of `PROTOCOLS`.
        num_classes: of the model.
        queries: of "square", for each image; AutoAttack's own keeps 5000.
        is_randomised: whether the model answers the same image differently each time; AutoAttack
            is then its rand version.
    """
    usual, version = PROTOCOLS[name], "rand" if is_randomised else "standard"
    if name == "square":
        # Its standard version would warn of every randomised model, in the rand version's favour.
        title = usual.title if queries == QUERIES else f"Square, {queries} queries"
        return Protocol(name, title, (_part(name, queries, version),))
    if name != "autoattack":
        return usual
    attacks: tuple[str, ...] = STANDARD
    title, note = usual.title, ""
    if is_randomised:
        attacks, title = RAND, f"AutoAttack rand ({EOT_PASSES} passes)"
        if num_classes < 3:
            attacks = RAND[:1]
            note = (
                "AutoAttack rand needs at least 3 classes for APGD-DLR's loss and the model has "
                f"{num_classes}: apgd-ce alone was run."
            )
    elif num_classes < 4:
        instead = ("apgd-dlr",) if num_classes == 3 else ()
        attacks, title = ("apgd-ce", *instead, "fab-t", "square"), "AutoAttack (not standard)"
        note = (
            "AutoAttack standard needs at least 4 classes for APGD-T's loss and the model has "
            f"{num_classes}: {', '.join(attacks)} were run instead."
        )
    elif num_classes <= TARGETS:
        note = (
            f"AutoAttack standard targets {TARGETS} classes; a model of {num_classes} classes has "
            f"{num_classes - 1} to target, and all of them are."
        )
    return Protocol(name, title, tuple(_part(each, version=version) for each in attacks), note)
