"""What a kind of fine-tuning does to each batch before the forward pass."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class ChangedBatch(NamedTuple):
    """Images (m, 3, h, w) in [0, 1], labels (m,), and weights (m,) of the objective or None."""

    images: Tensor
    labels: Tensor
    weights: Tensor | None = None


class BatchChange(Protocol):
    """Changes micro-batches, and measures what the log should say of them.

    Attributes:
        figures: names of what `measure` returns, for the progress bar and metrics.jsonl.
    """

    figures: tuple[str, ...]

    def change(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: float
    ) -> ChangedBatch:
        """Change images (n, 3, h, w) and labels (n,), on the device.

        Args:
            images: in [0, 1].
            labels: of the images.
            generator: seeded by the run's seed and the step alone.
            epoch: epochs trained so far, a fraction in the middle of one.
        """

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return each of `figures` for the logits (m, K) of the last changed batch, on its device.

        They are averaged over an epoch, each batch weighing as much as it has images.
        """
