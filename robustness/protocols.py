"""The attacks that an evaluation runs, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_tuning.training.seeds import derive_seed

from .attack.autoattack import (
    EOT_PASSES,
    QUERIES,
    STANDARD,
    TARGETS,
    attacks_for,
    randomised_attacks_for,
    run_attack,
)
from .attack.pgd import perturb
from .budgets import make_budget

# attack(view, images (n, 3, h, w), labels (n,), norm, eps, seed) -> images (n, 3, h, w)
Attack = Callable[[nn.Module, Tensor, Tensor, str, float, int], Tensor]

RESTARTS = 10
# Forward passes that a gradient with respect to the images is worth: there and back.
_GRADIENT = 2


class Stage(NamedTuple):
    """One attack of a protocol.

    Attributes:
        name: of the attack, for the report.
        attack: see `Protocol`.
        cost: at most so many forward passes an image, a gradient step counted as two.
    """

    name: str
    attack: Attack
    cost: int


class Protocol(NamedTuple):
    """An attack or a sequence of attacks, the worst of which counts.

    Attributes:
        name: on the command line.
        title: in tables and figures.
        attack: attack(view, images (n, 3, h, w) in [0, 1], labels (n,), norm, eps, seed) returns
            the images after the whole protocol.
        stages: the same in parts, each of which attacks only what is still classified right;
            empty: `attack` is all there is.
        note: how it differs from what its name says, "" if it does not.
    """

    name: str
    title: str
    attack: Attack
    stages: tuple[Stage, ...] = ()
    note: str = ""

    def parts(self) -> tuple[Stage, ...]:
        """Return the stages, or the attack as the only one."""
        return self.stages or (Stage(self.name, self.attack, 1),)


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


def run_stages(
    stages: tuple[Stage, ...],
    view: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    seed: int,
) -> Tensor:
    """Run attack after attack on what the view still classifies right.

    Each stage has a seed of its own. Returns the first image (3, h, w) of each that is classified
    wrong, or else what the last stage made of it.
    """
    found, left = images.clone(), torch.arange(len(images), device=images.device)
    for number, stage in enumerate(stages):
        if not len(left):
            break
        stage_seed = derive_seed(seed, number)
        attacked = stage.attack(view, images[left], labels[left], norm, eps, stage_seed)
        found[left] = attacked
        with torch.no_grad():
            left = left[view(attacked).argmax(dim=1) == labels[left]]
    return found


def _protocol(name: str, title: str, *stages: Stage, note: str = "") -> Protocol:
    whole = stages[0].attack if len(stages) == 1 else partial(run_stages, stages)
    return Protocol(name, title, whole, stages, note)


def _pgd(steps: int, name: str) -> Stage:
    return Stage(name, partial(descend, steps), steps * _GRADIENT)


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
        _protocol("fgsm", "FGSM (one step)", Stage("fgsm", single_step, _GRADIENT)),
        _protocol("pgd10", "PGD-10 (paper protocol)", _pgd(10, "pgd10")),
        _protocol(
            "pgd50x10",
            "PGD-50, 10 restarts",
            *(_pgd(50, f"restart {number}") for number in range(RESTARTS)),
        ),
        _protocol("square", "Square (black box)", _part("square")),
        _protocol("autoattack", "AutoAttack standard", *(_part(name) for name in STANDARD)),
    )
}
# Those that follow the gradient of the cross-entropy alone, whose zeros are counted.
GRADIENT_PROTOCOLS = ("fgsm", "pgd10", "pgd50x10")


def choose_protocol(
    name: str, num_classes: int, *, queries: int = QUERIES, is_randomised: bool = False
) -> Protocol:
    """Return a protocol as it runs on a model of so many classes.

    Args:
        name: a key of `PROTOCOLS`.
        num_classes: of the model; AutoAttack standard needs four.
        queries: of "square", for each image; AutoAttack's own keeps 5000.
        is_randomised: whether the model answers the same image differently each time; AutoAttack
            is then its rand version.
    """
    if is_randomised and name == "autoattack":
        attacks, note = randomised_attacks_for(num_classes)
        title = f"AutoAttack rand ({EOT_PASSES} passes)"
        parts = (_part(attack, version="rand") for attack in attacks)
        return _protocol(name, title, *parts, note=note)
    if name == "square":
        # Its standard version would warn of every randomised model, in the rand version's favour.
        version = "rand" if is_randomised else "standard"
        title = PROTOCOLS[name].title if queries == QUERIES else f"Square, {queries} queries"
        return _protocol(name, title, _part(name, queries, version))
    if name != "autoattack":
        return PROTOCOLS[name]
    attacks, note = attacks_for(num_classes)
    title = PROTOCOLS[name].title if attacks == STANDARD else "AutoAttack (not standard)"
    return _protocol(name, title, *(_part(attack) for attack in attacks), note=note)
