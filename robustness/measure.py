"""How many images a model classifies right under attack, counted so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from core_tuning.training.seeds import derive_seed

from .attack.pgd import check_result
from .attack.view import AttackView, device_of
from .pixels import Group
from .protocols import GRADIENT_PROTOCOLS, Protocol, Stage

TOLERANCE = 1e-4  # of a perturbation's norm; not all attacks project as exactly as PGD


class Accuracy(NamedTuple):
    """A share of images classified right, and its 95% Wilson interval [low, high], in percent."""

    correct: int
    n: int
    percent: float
    low: float
    high: float


def accuracy(correct: int, n: int) -> Accuracy:
    """Count `correct` of `n` images, of which there is at least one."""
    low, high = stats.binomtest(correct, n).proportion_ci(method="wilson")
    return Accuracy(correct, n, 100 * correct / n, 100 * low, 100 * high)


@contextmanager
def strict_float32(device: torch.device) -> Iterator[None]:
    """Compute in float32: no TensorFloat-32, no autocast."""
    precision = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


def as_float(images: Tensor) -> Tensor:
    """Scale bytes (n, 3, h, w) to float32 in [0, 1], as the transforms do; leave float32 alone."""
    if images.dtype != torch.uint8:
        return images
    return transforms.to_dtype(images, torch.float32, scale=True)


@torch.no_grad()
def classify(model: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Return the predicted classes (n,), on the CPU, of images (n, 3, h, w); -1 for a NaN logit."""
    predicted = []
    for batch in images.split(batch_size):
        logits = model(as_float(batch.to(device_of(model))))
        # argmax would take a NaN for the largest.
        predicted.append(torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1)).cpu())
    return torch.cat(predicted)


def right_without_attack(model: nn.Module, groups: Sequence[Group], *, batch_size: int) -> Tensor:
    """Which images (n,) bool, of all groups, a model classifies right."""
    right = torch.zeros(sum(len(each.labels) for each in groups), dtype=torch.bool)
    for images, labels, positions in groups:
        right[positions] = classify(model, images, batch_size=batch_size) == labels.cpu()
    return right


def bits(right: Tensor) -> str:
    """Write (n,) bool as a text of as many digits, 1 for True."""
    return "".join("1" if each else "0" for each in right.tolist())


@dataclass
class Outcome:
    """What a protocol of several stages does to n images; unfinished, what it goes on from.

    Attributes:
        lost: of each image, what it was lost to: 0 for a wrong class without an attack, k for
            the k-th stage, one more than there are stages while it is classified right.
        stages: number of stages that are done.
        batches: number of batches of the next one that are done.
        counted: number of images whose gradients were looked at.
        zeros: how many of those gradients were exactly zero or not finite, in images.
    """

    lost: list[int]
    stages: int = 0
    batches: int = 0
    counted: int = 0
    zeros: float = 0.0

    def is_right_after(self, stage: int) -> Tensor:
        """Which images (n,) bool are still right after so many stages."""
        return torch.tensor(self.lost) > stage

    @property
    def robust(self) -> Tensor:
        """Which images (n,) bool are right without and under attack."""
        return self.is_right_after(self.stages)

    @property
    def zero_gradients(self) -> float | None:
        """Share of unusable gradients in [0, 1], None if none was looked at."""
        return self.zeros / self.counted if self.counted else None

    def fits(self, n: int, stages: int) -> bool:
        """Whether this is what is saved of n images and so many stages."""
        return (
            0 <= self.stages <= stages
            and self.batches >= 0
            and len(self.lost) == n
            and all(type(each) is int for each in self.lost)
            and all(0 <= each <= self.stages + 1 or each == stages + 1 for each in self.lost)
        )


def measure(
    model: nn.Module,
    view: nn.Module,
    groups: Sequence[Group],
    protocol: Protocol,
    norm: str,
    eps: float,
    *,
    seed: int,
    batch_size: int,
    outcome: Outcome | None = None,
    save: Callable[[Outcome], None] = lambda outcome: None,
    on_batch: Callable[[int, Stage], None] = lambda images, stage: None,
) -> Outcome:
    """Attack a view of a model and judge what comes of it by the model itself.

    An image that is classified wrong without an attack counts as not robust. Every stage of the
    protocol attacks only what is still right, in batches of `batch_size`, each batch with a seed
    derived from (seed, stage, batch): another batch size gives other random starts.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode.
        view: the same function, made for attacks, on the same device.
        groups: the images, of one size in each; n in all.
        protocol: what is run.
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        seed: what every random start depends on, 0 or more.
        batch_size: images that are attacked at once.
        outcome: what an earlier call saved last, and this one goes on from.
        save: is called after every batch.
        on_batch: is told (images done with, stage): those attacked, or right no longer before it.

    Raises:
        UserError: images outside [0, 1].
        RuntimeError: an attack left the ball or the range of the images.
    """
    for images, _, _ in groups:
        if images.is_floating_point() and len(images):
            check_result(images, images, norm, eps)
    never = len(protocol.stages) + 1
    if outcome is None:
        right = right_without_attack(model, groups, batch_size=batch_size)
        outcome = Outcome((never * right.int()).tolist())
    device, lost = device_of(model), torch.tensor(outcome.lost)
    counted = view if isinstance(view, AttackView) else None
    if protocol.name not in GRADIENT_PROTOCOLS:
        counted = None
    for number, stage in enumerate(protocol.stages):
        if number < outcome.stages:
            on_batch(len(lost), stage)
            continue
        before = lost > number
        batches = [
            (group, chosen)
            for group in groups
            for chosen in before[group.positions].nonzero().flatten().split(batch_size)
            if len(chosen)
        ]
        earlier = sum(len(chosen) for _, chosen in batches[: outcome.batches])
        on_batch(earlier + int((~before).sum()), stage)
        for position in range(outcome.batches, len(batches)):
            group, chosen = batches[position]
            clean, truth = as_float(group.images[chosen].to(device)), group.labels[chosen]
            if counted is not None:
                counted.begin_count()
            batch_seed = derive_seed(seed, number, position)
            attacked = stage.attack(view, clean, truth.to(device), norm, eps, batch_seed).detach()
            check_result(clean, attacked, norm, eps, tolerance=TOLERANCE)
            wrong = classify(model, attacked, batch_size=batch_size) != truth.cpu()
            lost[group.positions[chosen[wrong]]] = number + 1
            if counted is not None:
                outcome.counted += len(chosen)
                outcome.zeros += float(counted.zero_gradient_share()) * len(chosen)
            outcome.batches, outcome.lost = position + 1, lost.tolist()
            save(outcome)
            on_batch(len(chosen), stage)
        outcome.stages, outcome.batches = number + 1, 0
        save(outcome)
    return outcome
