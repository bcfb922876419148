"""What a model is found to be before hours are spent on attacking it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.training.seeds import same_random_states, seed_everything

from .attack.autoattack import EOT_PASSES
from .attack.view import AttackView
from .measure import device_of
from .user_module import first_line, own_code, training_norm

# As pyautoattack's own check for randomised defences has them.
PASSES, TOLERANCE = 5, 1e-4
PROBED = 32


class Randomness(NamedTuple):
    """How far a model's answers to the same images differ from one forward pass to the next.

    Attributes:
        passes: forward passes of the same batch.
        images: of that batch.
        difference: largest L2 distance of an image's logits in two passes, relative to the norm
            of its logits less their mean.
        changed: percent of the images whose class differed.
    """

    passes: int
    images: int
    difference: float
    changed: float

    @property
    def is_randomised(self) -> bool:
        """Whether that is more than the rounding of kernels that add in any order."""
        return self.difference > TOLERANCE

    def facts(self) -> dict[str, Any]:
        """For report.json."""
        return {"is_randomised": self.is_randomised, **self._asdict()}


def describe_randomness(facts: dict[str, Any]) -> str:
    """Say in a few sentences what a randomised model's accuracies are worth."""
    return (
        f"The model is randomised: {facts['passes']} forward passes of the same {facts['images']} "
        f"images differ, and {facts['changed']:.0f}% of their classes change. Every accuracy is of "
        "one draw, which its interval leaves out. In place of AutoAttack's standard version its "
        f"'rand' version runs, whose gradients are means over {EOT_PASSES} passes (EOT); FGSM, PGD "
        "and Square see one pass, without EOT, and overstate robustness."
    )


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators, which a randomised model draws from; restore them afterwards."""
    with same_random_states():
        seed_everything(seed)
        yield


@torch.no_grad()
def check_output(model: nn.Module, num_classes: int, size: tuple[int, int]) -> None:
    """Check a model's logits of two grey images (2, 3, h, w).

    Raises:
        UserError: it fails on them, or returns something else than finite logits (2, K).
    """
    images = torch.full((2, 3, *size), 0.5, device=device_of(model))
    try:
        logits = model(images)
    except UserError:
        raise
    # A model may fail in any way, and whatever it is, it cannot be evaluated.
    except Exception as error:
        raise UserError(
            f"The model fails on images {tuple(images.shape)} with {type(error).__name__} "
            f"({first_line(error)}): check --image-size and the model."
        ) from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 2:
        raise UserError(f"The model returns {shape} for 2 images: expected logits (2, classes).")
    if logits.shape[1] != num_classes:
        raise UserError(
            f"The model has {logits.shape[1]} classes and the data set has {num_classes}: expected "
            "a model of the data set's classes; name its own with --dataset."
        )
    _check_finite(logits)


def inspect_answers(model: nn.Module, images: Tensor) -> Randomness:
    """Classify the same images several times, and follow the gradient of two.

    The global random states are restored.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode.
        images: (n, 3, h, w), float32 in [0, 1], n at least 1, on its device.

    Raises:
        UserError: the logits are not finite, a batch norm is in training mode, a batch of one
            image fails, or the way back through the model.
    """
    with same_random_states():
        with torch.no_grad():
            passes = torch.stack([model(images).float() for _ in range(PASSES)])  # (p, n, K)
            model(images[:1])
        norm = training_norm(model)
        if norm:
            raise UserError(
                f"The model's {norm} is in training mode although eval() was called: expected one "
                "that stays in evaluation mode, because images would otherwise be judged by the "
                "rest of their batch; leave the mode alone in its forward()."
            )
        _check_finite(passes)
        _check_gradient(model, images[:2])
    first = passes[0]
    scale = (first - first.mean(1, keepdim=True)).norm(dim=1)  # (n,)
    apart = (passes - first).norm(dim=2).amax(0)  # (n,)
    # Logits that are all alike have no scale; there any difference counts.
    relative = torch.where(apart > 0, apart / scale, 0.0)
    classes = passes.argmax(2)
    changed = (classes != classes[0]).any(0).double().mean()
    return Randomness(PASSES, len(images), float(relative.max()), 100 * float(changed))


def _check_finite(logits: Tensor) -> None:
    if not bool(logits.isfinite().all()):
        raise UserError(
            "The model's logits are not finite: expected numbers; check its weights, and that it "
            "takes images in [0, 1]."
        )


def _check_gradient(model: nn.Module, images: Tensor) -> None:
    """Fail now where a backward pass will; a model that cuts the graph passes."""
    view = AttackView(model)
    start = images.clone().requires_grad_()
    with own_code(
        "The backward pass of the model",
        "expected gradients with respect to the images; detach what has none, for the attacks "
        "without gradients to count",
    ):
        logits = view(start)
        labels = logits.argmax(1)
        torch.autograd.grad(F.cross_entropy(logits, labels), start)
