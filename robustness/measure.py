"""How many images a model classifies right under attack, counted so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from core_tuning.training.seeds import derive_seed

from .attack.pgd import check_result
from .attack.view import AttackView, device_of
from .pixels import Group
from .protocols import Protocol
from .rows import Outcome

TOLERANCE = 1e-4  # of a perturbation's norm; not all attacks project as exactly as PGD


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


def measure(
    model: nn.Module,
    view: AttackView,
    groups: Sequence[Group],
    protocol: Protocol,
    norm: str,
    eps: float,
    *,
    seed: int,
    batch_size: int,
    outcome: Outcome | None = None,
    save: Callable[[Outcome], None] = lambda outcome: None,
    on_work: Callable[[int], object] = lambda work: None,
) -> Outcome:
    """Attack a view of a model and judge what comes of it by the model itself.

    An image that is classified wrong without an attack counts as not robust. Every stage of the
    protocol attacks only what is still right, in batches of `batch_size`, each batch with a seed
    derived from (seed, stage, batch): another batch size gives other random starts.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode.
        view: of the model.
        groups: the images, of one size in each; n in all.
        protocol: what is run.
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        seed: what every random start depends on, 0 or more.
        batch_size: images that are attacked at once.
        outcome: what an earlier call saved last, and this one goes on from.
        save: is called after every batch.
        on_work: is told of work that is done or need not be done, in forward passes of an image.

    Raises:
        UserError: images outside [0, 1].
        RuntimeError: an attack left the ball or the range of the images.
    """
    for images, _, _ in groups:
        if images.is_floating_point() and len(images):
            check_result(images, images, norm, eps)
    if outcome is None:
        right = right_without_attack(model, groups, batch_size=batch_size)
        outcome = Outcome.start(right, len(protocol.stages))
    device, lost = device_of(model), torch.tensor(outcome.lost)
    for number, stage in enumerate(protocol.stages):
        if number < outcome.stages:
            on_work(len(lost) * stage.cost)
            continue
        before = lost > number
        batches = [
            (group, chosen)
            for group in groups
            for chosen in before[group.positions].nonzero().flatten().split(batch_size)
            if len(chosen)
        ]
        earlier = sum(len(chosen) for _, chosen in batches[: outcome.batches])
        on_work((earlier + int((~before).sum())) * stage.cost)
        for position in range(outcome.batches, len(batches)):
            group, chosen = batches[position]
            clean, truth = as_float(group.images[chosen].to(device)), group.labels[chosen]
            view.begin_count()
            batch_seed = derive_seed(seed, number, position)
            attacked = stage.attack(view, clean, truth.to(device), norm, eps, batch_seed).detach()
            check_result(clean, attacked, norm, eps, tolerance=TOLERANCE)
            wrong = classify(model, attacked, batch_size=batch_size) != truth.cpu()
            lost[group.positions[chosen[wrong]]] = number + 1
            outcome.counted += len(chosen)
            outcome.zeros += float(view.zero_gradient_share()) * len(chosen)
            outcome.batches, outcome.lost = position + 1, lost.tolist()
            save(outcome)
            on_work(len(chosen) * stage.cost)
        outcome.stages, outcome.batches = number + 1, 0
        save(outcome)
    return outcome
