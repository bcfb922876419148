"""Accuracy on every split of every environment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from core_tuning.data import Transforms
from core_tuning.data.images import DecodedImages, LabelledImages, decode, decoded_bytes
from core_tuning.data.loading import (
    Key,
    SeededTransform,
    evaluation_batches,
    image_loader,
    load_batches,
)
from core_tuning.training.seeds import derive_seed

from .environments import Environments, Split

BATCH = 256
GIB = 2**30


class Store:
    """The images of a data set: decoded, and as the evaluation sees them, where memory allows.

    Args:
        environments: of the data set.
        transforms: of training and of evaluation.
        memory: GiB that decoded images, and again that images ready for evaluation, may take.
        workers: processes that read images.
    """

    def __init__(
        self, environments: Environments, transforms: Transforms, *, memory: float, workers: int
    ) -> None:
        self.environments = environments
        self.transforms = transforms
        self.workers = workers
        self.memory = memory
        count = sum(len(images) for images in environments.images)
        self.keeps_evaluated = count * 3 * environments.image_size**2 <= memory * GIB
        self._images: list[LabelledImages] | None = None
        self._ready: dict[int, Tensor] = {}

    @property
    def images(self) -> list[LabelledImages]:
        """Images of each environment, read when first used: mistakes are found before that."""
        if self._images is None:
            images = self.environments.images
            fits = sum(decoded_bytes(part) for part in images) <= self.memory * GIB
            self._images = self._decode() if fits else images
        return self._images

    def _decode(self) -> list[LabelledImages]:
        names, images = self.environments.names, self.environments.images
        with tqdm(
            total=len(names), desc="reading images", unit="domain", leave=False, disable=None
        ) as bar:
            decoded: list[LabelledImages] = []
            for part in images:
                decoded.append(part if isinstance(part, DecodedImages) else decode(part))
                bar.update()
        return decoded

    def evaluation_batches(self, number: int, indices: Sequence[int]) -> Iterator[Tensor]:
        """Yield images (b, 3, h, w) in [0, 1] of an environment, without augmentation."""
        if not self.keeps_evaluated:
            yield from self.load(number, [(index, None) for index in indices], train=False)
            return
        ready = self._ready.get(number)
        if ready is None:
            everything = list(range(len(self.images[number])))
            keys: list[Key] = [(index, None) for index in everything]
            batches = self.load(number, keys, train=False)
            ready = torch.cat([_to_bytes(batch) for batch in batches])
            self._ready[number] = ready
        for first in range(0, len(indices), BATCH):
            # Multiplied as the transform does: dividing would round many of them otherwise.
            yield ready[list(indices[first : first + BATCH])].float().mul_(1 / 255)

    def load(self, number: int, keys: Sequence[Key], *, train: bool) -> Iterator[Tensor]:
        """Yield batches of transformed images of an environment."""
        transform = self.transforms.train if train else self.transforms.evaluate
        batches = [
            [keys[index] for index, _ in batch] for batch in evaluation_batches(len(keys), BATCH)
        ]
        transformed = SeededTransform(self.images[number], transform)
        loader = image_loader(transformed, batches, self.workers)
        for images, _ in load_batches(loader):
            yield images


def _to_bytes(images: Tensor) -> Tensor:
    # Exact: the transform made them out of bytes.
    return images.mul(255).round_().to(torch.uint8)


class Protocol(NamedTuple):
    """What is evaluated, and how.

    Attributes:
        splits: of each environment.
        sources: environments that are trained on.
        seed: of the run.
        augmented: evaluate the sources' images augmented, as DomainBed does.
        skip_sources_inside: leave out the images that are trained on.
    """

    splits: list[Split]
    sources: list[int]
    seed: int
    augmented: bool = False
    skip_sources_inside: bool = False


class DomainAccuracies(NamedTuple):
    """What a model was measured to be on every split of every domain.

    Attributes:
        accuracies: in [0, 1], by DomainBed's names `env{i}_in_acc` and `env{i}_out_acc`.
        score: mean of those on the sources' out-splits, in percent, which selects the model.
    """

    accuracies: dict[str, float]
    score: float

    def summary(self) -> dict[str, float]:
        """The figures of a metrics line."""
        return {"top1": self.score}


@torch.no_grad()
def measure(model: nn.Module, step: int, *, store: Store, protocol: Protocol) -> DomainAccuracies:
    """Classify the images of every split.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K); its mode is restored afterwards.
        step: DomainBed's number of it, on which augmentations depend.
        store: of the images.
        protocol: what is evaluated.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    result = {}
    for number, split in enumerate(protocol.splits):
        is_source = number in protocol.sources
        inside = [] if is_source and protocol.skip_sources_inside else split.inside
        indices = [*inside, *split.outside]
        if is_source and protocol.augmented:
            keys: list[Key] = [
                (index, derive_seed(protocol.seed, step, number, index)) for index in indices
            ]
            batches = store.load(number, keys, train=True)
        else:
            batches = store.evaluation_batches(number, indices)
        predicted = torch.cat([_predict(model, images, device) for images in batches])
        labels = torch.tensor(store.images[number].labels)[indices]
        correct = predicted.cpu() == labels
        if inside:
            result[f"env{number}_in_acc"] = correct[: len(inside)].double().mean().item()
        if split.outside:
            result[f"env{number}_out_acc"] = correct[len(inside) :].double().mean().item()
    model.train(was_training)
    sources = [result[f"env{number}_out_acc"] for number in protocol.sources]
    return DomainAccuracies(result, 100 * sum(sources) / len(sources))


def _predict(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    images = images.to(device, non_blocking=True)
    if device.type == "cpu":
        images = images.contiguous(memory_format=torch.channels_last)
    return model(images).argmax(dim=1)
