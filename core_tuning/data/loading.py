"""Which images make a batch, and the random numbers of each image's augmentation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..checks import check_range
from ..errors import UserError
from ..stopping import undisturbed, worker_setup
from .images import ImageAndLabel
from .splits import seeded_generator

# The index of an image and the seed of its augmentation; None where nothing is random.
Key = tuple[int, int | None]
Batch = TypeVar("Batch")

# A stream apart from those that divide the data sets at the same seed.
_EPOCHS = 10


class SeededTransform(Dataset[tuple[Tensor, int]]):
    """Applies a transform whose random numbers depend on the key's seed alone.

    An image is therefore augmented alike whichever worker does it, and however many there are.
    The transform may draw from torch's CPU generator only, as torchvision.transforms.v2 does; that
    generator's state is restored afterwards. No device's generator is touched.
    """

    def __init__(
        self, dataset: Dataset[ImageAndLabel], transform: Callable[[Image.Image], Tensor]
    ) -> None:
        self.dataset = dataset
        self.transform = transform

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """Return (transformed image (3, h, w), label) of the key (index, seed)."""
        index, seed = key
        image, label = self.dataset[index]
        if seed is None:
            return self.transform(image), label
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed the CUDA generators too.
            torch.random.default_generator.manual_seed(seed)
            return self.transform(image), label


class EpochSampler:
    """Gives each epoch's batches without keeping a state, so that any batch can be resumed at.

    The last batch of an epoch is left out where it would be smaller than the others.

    Args:
        n: number of images.
        batch_size: images in a batch.
        seed: what every epoch's order and augmentations depend on, 0 or more.

    Raises:
        UserError: there are fewer images than a batch, or the batch size is out of range.
    """

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        check_range("batch_size", batch_size, "--batch-size")
        if n < batch_size:
            raise UserError(
                f"The training set has {n} images, fewer than a batch of {batch_size}: "
                f"give --batch-size {n} or less, or more images."
            )
        self.n = n
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self.n // self.batch_size

    def batches(self, epoch: int, start: int = 0) -> Iterator[list[Key]]:
        """Yield the keys (index, seed) of each batch of an epoch, from batch `start` on.

        The order depends on (seed, epoch) only, and an augmentation's seed on (seed, epoch,
        position in the epoch) only.
        """
        generator = seeded_generator(self.seed, _EPOCHS, epoch)
        order = generator.permutation(self.n).tolist()
        seeds = generator.integers(2**63, size=self.n).tolist()
        keys: list[Key] = list(zip(order, seeds, strict=True))
        for batch in range(start, len(self)):
            yield keys[batch * self.batch_size : (batch + 1) * self.batch_size]


def evaluation_batches(n: int, batch_size: int) -> Iterator[list[Key]]:
    """Yield the keys (index, None) of every image in order, the last batch as small as it is."""
    for first in range(0, n, batch_size):
        yield [(index, None) for index in range(first, min(first + batch_size, n))]


def image_loader(
    images: Dataset, batches: Iterable[list[Key]], workers: int, *, keep_workers: bool = False
) -> DataLoader:
    """Load batches of keys in `workers` processes, which end with this one and not before it."""
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=keep_workers and workers > 0,
        worker_init_fn=worker_setup() if workers else None,
        # Its own, because a DataLoader draws a seed from the global generator otherwise, and how
        # often it does depends on the workers.
        generator=torch.Generator(),
    )


def evaluation_loader(images: SeededTransform, batch_size: int, workers: int) -> DataLoader:
    """Batches of (images in [0, 1], labels), in order."""
    batches = list(evaluation_batches(len(images), batch_size))
    return image_loader(images, batches, useful_workers(workers, len(batches)), keep_workers=True)


def useful_workers(workers: int, batches: int) -> int:
    """Return how many of the workers so many batches keep busy: none where there is but one."""
    return max(0, min(workers, batches - 1))


def load_batches(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Yield a DataLoader's batches, and a worker's UserError as the sentence that it was.

    A DataLoader puts the worker's traceback into the exception's message.
    """
    try:
        # A loader that is stopped half-made complains, and a fork loses what stops it.
        with undisturbed():
            batches = iter(loader)
        yield from batches
    except UserError as error:
        sentence = str(error).rpartition(f"{UserError.__name__}: ")[2]
        raise UserError(sentence.strip()) from None
