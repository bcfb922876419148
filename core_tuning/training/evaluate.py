"""Accuracy of a model on a data set, in float32, and where it is most wrong."""

from __future__ import annotations

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
        """Counts of the predictions for images that nothing attacks."""


class Mistake(NamedTuple):
    """An image that is taken for another class.

    Attributes:
        image: its number among those that were classified.
        true: its class.
        predicted: the class that it is taken for.
        confidence: probability in [0, 1] that the model gives that class.
    """

    image: int
    true: int
    predicted: int
    confidence: float


class Evaluation(NamedTuple):
    """Counts of a data set's predictions, of the pairs of classes that occur.

    Of K classes there are K^2 pairs, and at most as many occur as there are images.

    Attributes:
        true: class of each pair (m,), int64, ascending, on the CPU.
        predicted: what its images were taken for (m,), int64.
        counts: number of its images (m,), int64.
        num_classes: K.
        loss: mean cross-entropy, in nats.
        mistakes: of which the model is most confident, at most `MISTAKES`.
    """

    true: Tensor
    predicted: Tensor
    counts: Tensor
    num_classes: int
    loss: float
    mistakes: tuple[Mistake, ...] = ()

    @property
    def plain(self) -> Evaluation:
        """Itself."""
        return self

    @property
    def images(self) -> int:
        """Number of images that were classified."""
        return int(self.counts.sum())

    @property
    def top1(self) -> float:
        """Share of images classified correctly, in percent."""
        return 100 * int(self.counts[self.true == self.predicted].sum()) / self.images

    @property
    def score(self) -> float:
        """What selects a model: top-1 in percent."""
        return self.top1

    @property
    def mean_per_class(self) -> float:
        """Mean over the classes that occur of their accuracy, in percent."""
        images, right = self.per_class(), self.per_class(self.true == self.predicted)
        occurs = images > 0
        return 100 * float((right[occurs] / images[occurs]).mean())

    def per_class(self, chosen: Tensor | None = None) -> Tensor:
        """Images of each class (K,) in the chosen pairs (m,), in all by default."""
        counts = self.counts if chosen is None else self.counts * chosen
        return torch.zeros(self.num_classes, dtype=torch.int64).index_add_(0, self.true, counts)

    def most_confused(self, at_most: int) -> list[int]:
        """Return the classes with the most wrong images, in the order of their labels."""
        wrong = self.per_class(self.true != self.predicted)
        return sorted(wrong.argsort(descending=True, stable=True)[:at_most].tolist())

    def confusion(self, classes: list[int] | None = None) -> Tensor:
        """Images of class i taken for class j (k, k), int64, of some classes; of all by default."""
        chosen = list(range(self.num_classes)) if classes is None else classes
        position = torch.full((self.num_classes,), -1)
        position[chosen] = torch.arange(len(chosen))
        rows, columns = position[self.true], position[self.predicted]
        inside = (rows >= 0) & (columns >= 0)
        matrix = torch.zeros(len(chosen), len(chosen), dtype=torch.int64)
        matrix[rows[inside], columns[inside]] = self.counts[inside]
        return matrix

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
        self.pairs: list[Tensor] = []
        self.confidence: list[Tensor] = []
        self.loss = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Count a batch's logits (n, K) of the true classes (n,); return the predicted (n,)."""
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        self.pairs.append(labels * self.num_classes + predicted)
        self.confidence.append(confidence)
        self.loss += nn.functional.cross_entropy(logits, labels, reduction="sum").double()
        return predicted

    def evaluation(self) -> Evaluation:
        """Return the counts of all batches; there must be one."""
        of_images = torch.cat(self.pairs).cpu()
        pairs, counts = of_images.unique(return_counts=True)
        mean_loss = float(self.loss) / max(1, int(counts.sum()))
        true, predicted = pairs // self.num_classes, pairs % self.num_classes
        return Evaluation(
            true, predicted, counts, self.num_classes, mean_loss, self._mistakes(of_images)
        )

    def _mistakes(self, pairs: Tensor) -> tuple[Mistake, ...]:
        true, predicted = pairs // self.num_classes, pairs % self.num_classes
        confidence = torch.cat(self.confidence).cpu().float()
        wrong = (true != predicted).nonzero().flatten()
        order = confidence[wrong].argsort(descending=True, stable=True)[:MISTAKES]
        chosen = wrong[order]
        columns = (chosen, true[chosen], predicted[chosen], confidence[chosen])
        return tuple(
            Mistake(*row) for row in zip(*(each.tolist() for each in columns), strict=True)
        )


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
