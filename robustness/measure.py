"""How many images a model classifies right under attack, counted so that it can be resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from core_tuning.errors import UserError
from core_tuning.files import read_json
from core_tuning.training.folder import write_atomically
from core_tuning.training.seeds import derive_seed

from .protocols import GRADIENT_PROTOCOLS, Protocol, Stage

# Of a standard normal distribution: 95% lie within.
_Z = 1.959963984540054
# What rounding in float32 may add to a perturbation's norm.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-5


def wilson(correct: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of a share, in percent (Wilson, 1927).

    Args:
        correct: number of images classified right.
        n: number of images, at least 1.
    """
    share, z2 = correct / n, _Z**2 / n
    centre = (share + z2 / 2) / (1 + z2)
    half = _Z / (1 + z2) * math.sqrt(share * (1 - share) / n + z2 / (4 * n))
    # At the ends the formula gives the bound itself, but for rounding.
    low = 0.0 if correct == 0 else centre - half
    high = 1.0 if correct == n else centre + half
    return 100 * low, 100 * high


class Accuracy(NamedTuple):
    """A share of images classified right, and its 95% Wilson interval [low, high] in percent."""

    correct: int
    n: int
    low: float
    high: float

    @property
    def percent(self) -> float:
        """The share in percent."""
        return 100 * self.correct / self.n


def accuracy(correct: int, n: int) -> Accuracy:
    """Count `correct` of `n` images."""
    return Accuracy(correct, n, *wilson(correct, n))


class Measurement(NamedTuple):
    """What a protocol left of a set of images.

    Attributes:
        robust: (n,) bool on the CPU, classified right without and under attack.
        after: (stage, images still classified right after it).
        zero_gradients: share of exactly zero gradients in [0, 1], None if none was counted.
    """

    robust: Tensor
    after: list[tuple[str, int]]
    zero_gradients: float | None


class SavedState:
    """A small JSON file that is replaced after every batch.

    Args:
        path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        """Return what was written last; {} if there is nothing."""
        if self.path is None or not self.path.exists():
            return {}
        return read_json(self.path)

    def write(self, contents: dict[str, Any]) -> None:
        """Replace the file."""
        if self.path is not None:
            write_atomically(self.path, json.dumps(contents).encode())


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


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first tensor; the CPU if it has none."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


@torch.no_grad()
def classify(model: nn.Module, images: Tensor, *, batch_size: int) -> Tensor:
    """Return the predicted classes (n,), on the CPU, of images (n, 3, h, w); -1 for a NaN logit."""
    device = device_of(model)
    return torch.cat([_predict(model, batch.to(device)) for batch in images.split(batch_size)])


def _predict(model: nn.Module, images: Tensor) -> Tensor:
    logits = model(as_float(images))
    # argmax would take a NaN for the largest.
    return torch.where(logits.isnan().any(dim=1), -1, logits.argmax(dim=1)).cpu()


def measure(
    model: nn.Module,
    view: nn.Module,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    norm: str,
    eps: float,
    *,
    seed: int,
    batch_size: int,
    saved: SavedState | None = None,
    on_batch: Callable[[int, Stage], None] | None = None,
) -> Measurement:
    """Attack a view of a model and judge what comes of it by the model itself.

    An image that is classified wrong without an attack counts as not robust. Every stage of the
    protocol attacks only what is still right, in batches of `batch_size`, each batch with a seed
    derived from (seed, stage, batch): another batch size gives other random starts.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode.
        view: the same function, made for attacks, on the same device.
        images: (n, 3, h, w), float32 in [0, 1] or bytes.
        labels: true classes (n,).
        protocol: what is run.
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        seed: what every random start depends on, 0 or more.
        batch_size: images that are attacked at once.
        saved: keeps what is done after every batch, and what this call goes on from.
        on_batch: is told (images done with, stage): those attacked, or right no longer before it.

    Raises:
        UserError: images outside [0, 1].
        RuntimeError: an attack left the ball or the range of the images.
    """
    check_images(images)
    saved = saved or SavedState(None)
    state = saved.read()
    if state:
        _check_state(state, len(images), len(protocol.parts()), saved.path)
    else:
        right = classify(model, images, batch_size=batch_size) == labels.cpu()
        state = {"stage": 0, "batch": 0, "before": right.tolist(), "robust": right.tolist()}
        state |= {"after": [], "zero": []}
    device = device_of(model)
    parts = protocol.parts()
    robust = torch.tensor(state["robust"], dtype=torch.bool)
    tell = on_batch or (lambda done, stage: None)
    for stage in parts[: state["stage"]]:
        tell(len(images), stage)
    for number in range(state["stage"], len(parts)):
        before = torch.tensor(state["before"], dtype=torch.bool)
        batches = before.nonzero().flatten().split(batch_size)
        tell(sum(map(len, batches[: state["batch"]])) + int((~before).sum()), parts[number])
        for position in range(state["batch"], len(batches)):
            chosen = batches[position]
            if not len(chosen):
                continue
            clean = as_float(images[chosen].to(device))
            truth = labels[chosen].to(device)
            batch_seed = derive_seed(seed, number, position)
            attacked, zero = _attack(
                parts[number], view, clean, truth, norm, eps, batch_seed, counts(protocol)
            )
            robust[chosen] &= classify(model, attacked, batch_size=batch_size) == truth.cpu()
            state["zero"] += [[len(chosen), zero]] if zero is not None else []
            state |= {"batch": position + 1, "robust": robust.tolist()}
            saved.write(state)
            tell(len(chosen), parts[number])
        state["after"].append([parts[number].name, int(robust.sum())])
        state |= {"stage": number + 1, "batch": 0, "before": robust.tolist()}
        saved.write(state)
    after = [(name, count) for name, count in state["after"]]
    return Measurement(robust, after, _mean_share(state["zero"]))


def _check_state(state: dict[str, Any], n: int, stages: int, path: Path | None) -> None:
    """Raise a UserError unless this is what `measure` saves of n images."""
    kept = {"stage": int, "batch": int, "before": list, "robust": list, "after": list, "zero": list}
    fits = (
        all(type(state.get(name)) is kind for name, kind in kept.items())
        and 0 <= state["stage"] <= stages
        and state["batch"] >= 0
        and len(state["before"]) == len(state["robust"]) == n
        and {*map(type, state["before"]), *map(type, state["robust"])} <= {bool}
        and all(_are(pair, str, int) for pair in state["after"])
        and all(_are(pair, int, float) for pair in state["zero"])
    )
    if not fits:
        raise UserError(
            f"{path} is damaged: expected what the row in progress was stopped at; delete it, and "
            "--resume measures that row anew."
        )


def _are(values: object, *kinds: type) -> bool:
    return isinstance(values, list) and [type(value) for value in values] == list(kinds)


def counts(protocol: Protocol) -> bool:
    """Whether a protocol's zero gradients are counted."""
    return protocol.name in GRADIENT_PROTOCOLS


def check_images(images: Tensor) -> None:
    """Raise a UserError unless the images are bytes, or float32 within [0, 1]."""
    if images.dtype == torch.uint8 or not len(images):
        return
    low, high = float(images.min()), float(images.max())
    if images.dtype != torch.float32 or not (low >= 0 and high <= 1):
        raise UserError(
            f"The images are {str(images.dtype).removeprefix('torch.')} in [{low:.4g}, {high:.4g}]:"
            " expected float32 in [0, 1]; normalise within the model."
        )


def _attack(
    stage: Stage,
    view: nn.Module,
    images: Tensor,
    labels: Tensor,
    norm: str,
    eps: float,
    seed: int,
    count: bool,
) -> tuple[Tensor, float | None]:
    if count:
        view.begin_count()  # type: ignore[operator]
    attacked = stage.attack(view, images, labels, norm, eps, seed).detach()
    _check_perturbation(stage, attacked, images, norm, eps)
    return attacked, float(view.zero_gradient_share()) if count else None  # type: ignore[operator]


def _check_perturbation(
    stage: Stage, attacked: Tensor, images: Tensor, norm: str, eps: float
) -> None:
    change = (attacked - images).flatten(1)
    largest = float(change.abs().max() if norm == "linf" else change.norm(dim=1).max())
    low, high = float(attacked.min()), float(attacked.max())
    # Written so that NaN fails.
    if not (largest <= eps * (1 + _RELATIVE) + _ABSOLUTE and low >= 0 and high <= 1):
        raise RuntimeError(
            f"{stage.name} made a perturbation of {norm} norm {largest:.6g} in [{low:.4g}, "
            f"{high:.4g}] where {eps:.6g} in [0, 1] was allowed: its figures would be wrong."
        )


def _mean_share(counted: list[list[float]]) -> float | None:
    images = sum(n for n, _ in counted)
    return sum(n * share for n, share in counted) / images if images else None
