"""Which images of each source domain make a step's batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from core_tuning.data.loading import Key
from core_tuning.data.seeding import seeded_generator

# A stream apart from every other that is drawn from the run's seed.
_STEPS = 20


class DomainBatches:
    """Keys of the batches of a run, from a step on: `batch_size` of each source, one after another.

    As in DomainBed, images are drawn with replacement, uniformly or with equal weight for each
    class; what a step draws depends on the seed and the step alone.

    Args:
        labels: of the training images of each source domain; their indices run on from one domain
            to the next.
        batch_size: images a domain.
        seed: of the run.
        steps: of the whole run.
        start: first step that is wanted.
        class_balanced: whether classes weigh the same.
    """

    def __init__(
        self,
        labels: Sequence[Sequence[int]],
        batch_size: int,
        seed: int,
        *,
        steps: int,
        start: int = 0,
        class_balanced: bool = False,
    ) -> None:
        self.sizes = [len(part) for part in labels]
        self.weights = [_balanced(part) if class_balanced else None for part in labels]
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.start = start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Key]]:
        return (self.batch(step) for step in range(self.start, self.steps))

    def batch(self, step: int) -> list[Key]:
        """Return the keys (index, seed of the augmentation) of one step."""
        generator = seeded_generator(self.seed, _STEPS, step)
        indices = []
        first = 0
        for size, weights in zip(self.sizes, self.weights, strict=True):
            chosen = generator.choice(size, size=self.batch_size, p=weights)
            indices += (first + chosen).tolist()
            first += size
        seeds = generator.integers(2**63, size=len(indices)).tolist()
        return list(zip(indices, seeds, strict=True))


def _balanced(labels: Sequence[int]) -> np.ndarray:
    counts = Counter(labels)
    weights = np.array([1 / counts[label] for label in labels])
    return weights / weights.sum()
