"""Accuracy of a model on a data set, in float32, and where it is most wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core_tuning.data.loading import load_batches

# A page shows so many.
MISTAKES = 12


class Evaluated(Protocol):
    """What a run must know of a measurement, whatever was measured."""

    @property
    def score(self) -> float:
        """In percent; the model with the highest one on the validation split is kept."""

    def summary(self) -> dict[str, Any]:
        """Return the figures of a metrics line."""


class Classified(Evaluated, Protocol):
    """A measurement of a classifier."""

    @property
    def plain(self) -> Evaluation:
        """Predictions for images that nothing attacks."""


class Evaluation(NamedTuple):
    """Predictions for the images of a data set, in its order.

    Attributes:
        true: class of each image (n,), int64, on the CPU.
        predicted: class that it is taken for (n,), int64.
        confidence: probability in [0, 1] that the model gives that class (n,).
        num_classes: K.
        loss: mean cross-entropy, in nats.
    """

    true: Tensor
    predicted: Tensor
    confidence: Tensor
    num_classes: int
    loss: float

    @property
    def plain(self) -> Evaluation:
        """Itself."""
        return self

    @property
    def images(self) -> int:
        """Number of images that were classified."""
        return len(self.true)

    @property
    def right(self) -> Tensor:
        """Whether each image (n,) is classified correctly."""
        return self.true == self.predicted

    @property
    def top1(self) -> float:
        """Share of images classified correctly, in percent."""
        return 100 * int(self.right.sum()) / self.images

    @property
    def score(self) -> float:
        """What selects a model: top-1 in percent."""
        return self.top1

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that occur of their accuracy, in percent."""
        images, right = self.per_class(), self.per_class(self.right)
        occurs = images > 0
        return 100 * float((right[occurs] / images[occurs]).mean())

    def per_class(self, chosen: Tensor | None = None) -> Tensor:
        """Images of each class (K,), of those that a mask (n,) chooses; of all by default."""
        true = self.true if chosen is None else self.true[chosen]
        return true.bincount(minlength=self.num_classes)

    def most_confused(self, at_most: int) -> list[int]:
        """Return the classes with the most wrong images, in the order of their labels."""
        wrong = self.per_class(~self.right)
        return sorted(wrong.argsort(descending=True, stable=True)[:at_most].tolist())

    def confusion(self, classes: Sequence[int] | None = None) -> Tensor:
        """Images of class i taken for class j (k, k), int64, of some classes; of all by default."""
        chosen = list(range(self.num_classes) if classes is None else classes)
        position = torch.full((self.num_classes,), -1)
        position[chosen] = torch.arange(len(chosen))
        rows, columns = position[self.true], position[self.predicted]
        cells = (rows * len(chosen) + columns)[(rows >= 0) & (columns >= 0)]
        return cells.bincount(minlength=len(chosen) ** 2).view(len(chosen), len(chosen))

    def worst(self, at_most: int = MISTAKES) -> Tensor:
        """Numbers of the images that the model is most confidently wrong about, these first."""
        wrong = (~self.right).nonzero().flatten()
        return wrong[self.confidence[wrong].argsort(descending=True, stable=True)[:at_most]]

    def summary(self) -> dict[str, Any]:
        """The figures of a metrics line."""
        names = ("top1", "mean_per_class", "loss", "images")
        return {name: getattr(self, name) for name in names}


class Tally:
    """Collects predictions batch by batch; nothing is read back before `evaluation`.

    Args:
        num_classes: K.
        device: of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self.batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self.loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch's logits (n, K) of the true classes (n,); return the predicted (n,)."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self.batches.append((labels, predicted, confidence.float()))
        self.loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
        return predicted

    def evaluation(self) -> Evaluation:
        """Return the predictions of all batches; there must be one."""
        true, predicted, confidence = (
            torch.cat(parts).cpu() for parts in zip(*self.batches, strict=True)
        )
        mean_loss = float(self.loss) / max(1, len(true))
        return Evaluation(true, predicted, confidence, self.num_classes, mean_loss)


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, num_classes: int) -> Evaluation:
    """Classify every image of a loader of (images (n, 3, h, w) in [0, 1], labels (n,)).

    The model's mode is restored afterwards; nothing is read back before the last batch.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    tally = Tally(num_classes, device)
    for images, labels in load_batches(loader):
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        tally.add(model(images), labels)
    model.train(was_training)
    return tally.evaluation()
