"""Accuracy of a learner on a data set, in float32."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core_tuning.data.loading import load_batches


class Evaluated(Protocol):
    """What a run must know of a measurement, whatever was measured."""

    @property
    def confusion(self) -> Tensor:
        """Images of class i classified as j (K, K), int64, on the CPU."""

    @property
    def score(self) -> float:
        """In percent; the model with the highest one on the validation split is kept."""

    def summary(self) -> dict[str, Any]:
        """Return the figures of a metrics line."""


class Evaluation(NamedTuple):
    """Counts of a data set's predictions.

    Attributes:
        confusion: images of class i classified as j (K, K), int64, on the CPU.
        loss: mean cross-entropy, in nats.
    """

    confusion: Tensor
    loss: float

    @property
    def images(self) -> int:
        """Number of images that were classified."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of images classified correctly, in percent."""
        return 100 * float(self.confusion.trace()) / self.images

    @property
    def score(self) -> float:
        """What selects a model: top-1 in percent."""
        return self.top1

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that occur of their accuracy, in percent."""
        counts = self.confusion.sum(dim=1)
        occurs = counts > 0
        return 100 * float((self.confusion.diag()[occurs] / counts[occurs]).mean())

    def summary(self) -> dict[str, Any]:
        """The figures of a metrics line."""
        return {
            "top1": self.top1,
            "mean_per_class": self.mean_per_class,
            "loss": self.loss,
            "images": self.images,
        }


class Tally:
    """Counts predictions batch by batch; nothing is read back before `evaluation`.

    Args:
        num_classes: K.
        device: of the logits.
    """

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self.num_classes = num_classes
        self.confusion = torch.zeros(num_classes**2, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch's logits (n, K) of the true classes (n,); return the predicted (n,)."""
        predicted = logits.argmax(dim=1)
        cells = labels * self.num_classes + predicted
        self.confusion.index_add_(0, cells, torch.ones_like(cells))
        self.loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
        return predicted

    def evaluation(self) -> Evaluation:
        """Return the counts of all batches."""
        counts = self.confusion.view(self.num_classes, self.num_classes).cpu()
        return Evaluation(counts, float(self.loss) / max(1, int(counts.sum())))


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
