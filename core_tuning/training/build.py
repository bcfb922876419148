"""Builds the data and the learner that a command's options describe."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from torch import nn
from torch.utils.data import DataLoader

from core_tuning.checkpoints.sources import EMBEDDED, RANDOM, load_image_encoder
from core_tuning.config import Model, Training
from core_tuning.data import Splits, build_transforms, default_recipe, load_splits
from core_tuning.data.images import LabelledImages, decode, decoded_bytes
from core_tuning.data.loading import (
    EpochSampler,
    Key,
    SeededTransform,
    evaluation_loader,
    image_loader,
    useful_workers,
)
from core_tuning.data.transforms import RECIPES
from core_tuning.encoders import NO_NORMALISATION, Normalisation, feature_dim
from core_tuning.errors import UserError
from core_tuning.methods import METHODS

from .learner import Learner
from .seeds import seed_everything

NORMALISATIONS = {"checkpoint": None, "imagenet": Normalisation(), "none": NO_NORMALISATION}
GIB = 2**30


class EpochBatches:
    """Batches of a data set, epoch after epoch in another order.

    Args:
        images: keyed by (index, seed of the augmentation).
        sampler: of an epoch's keys.
        steps: of the whole run.
        workers: processes that load images.
    """

    def __init__(
        self, images: SeededTransform, sampler: EpochSampler, steps: int, workers: int
    ) -> None:
        self.images = images
        self.sampler = sampler
        self.steps = steps
        self.workers = workers

    def loader(self, start: int) -> DataLoader:
        """Load the batches from a step on."""
        workers = useful_workers(self.workers, self.steps - start)
        return image_loader(self.images, self._keys(start), workers)

    def _keys(self, start: int) -> Iterator[list[Key]]:
        first, position = divmod(start, len(self.sampler))
        epochs = (
            self.sampler.batches(epoch, position if epoch == first else 0) for epoch in count(first)
        )
        return islice(chain.from_iterable(epochs), self.steps - start)

    def epoch(self, step: int) -> float:
        """Return how often so many steps have seen the training data."""
        return step / len(self.sampler)


class Data(NamedTuple):
    """A data set's splits behind their transforms."""

    splits: Splits
    train: SeededTransform
    validation: DataLoader | None
    test: DataLoader
    recipe: str
    image_size: int


def build_data(options: Training, seed: int) -> Data:
    """Load the splits of one seed and put the transforms on them."""
    splits = load_splits(
        options.dataset,
        options.data_dir,
        download=options.download,
        fraction=options.fraction,
        validation=options.validation,
        seed=seed,
        scan=options.scan,
    )
    if options.batch_size > len(splits.train):
        raise UserError(
            f"The training set of {options.dataset} has {len(splits.train)} images, fewer than "
            f"a batch of {options.batch_size}: lower --batch-size."
        )
    recipe, side = recipe_of(options), image_size(options)
    transforms = build_transforms(recipe, side)

    def loader(images: LabelledImages) -> DataLoader:
        if options.limit_steps is not None:
            # Spread evenly, because data sets are sorted by class.
            chosen = min(len(images), options.limit_steps * options.batch_size)
            images = images.subset([index * len(images) // chosen for index in range(chosen)])
        dataset = SeededTransform(images, transforms.evaluate)
        return evaluation_loader(dataset, options.batch_size, options.workers)

    train = SeededTransform(splits.train, transforms.train)
    validation = loader(splits.validation) if len(splits.validation) else None
    return Data(splits, train, validation, loader(splits.test), recipe, side)


def keep_in_memory(parts: list[SeededTransform], gib: float) -> None:
    """Decode the images of several data sets once, where all of them fit into so much memory."""
    images = [cast(LabelledImages, part.dataset) for part in parts]
    if gib and sum(map(decoded_bytes, images)) <= gib * GIB:
        for part, each in zip(parts, images, strict=True):
            part.dataset = decode(each)


def recipe_of(options: Training) -> str:
    """The name of the transforms that --transforms has, or stands for when it is left out."""
    return options.transforms or default_recipe(options.dataset)


def image_size(options: Training) -> int:
    """Side of the network's input in pixels."""
    return options.image_size or RECIPES[recipe_of(options)][1]


class Initial(NamedTuple):
    """What an encoder's weights came from.

    Attributes:
        loaded: said in a few lines.
        sha256: of the file; "embedded" or "random" where there is none.
    """

    loaded: str
    sha256: str


def build_learner(
    options: Model, method: str, values: Mapping[str, Any], num_classes: int, side: int, seed: int
) -> tuple[Learner, Initial]:
    """Build encoder, classifier and objective; random weights depend on the seed alone.

    Args:
        options: name the encoder and its checkpoint.
        method: a key of METHODS.
        values: hyper-parameters of the method.
        num_classes: K.
        side: of the images in pixels.
        seed: of the run.

    Raises:
        UserError: there is no checkpoint, it does not fit, or a value is out of its range.
    """
    seed_everything(seed)
    pretrained = options.pretrained
    if pretrained is None:
        raise UserError(
            "--pretrained is missing: name a self-supervised checkpoint, or 'random' for an "
            "encoder without pre-training."
        )
    assert options.encoder is not None
    image_encoder, origin = load_image_encoder(
        options.encoder, pretrained, normalisation=NORMALISATIONS[options.normalisation]
    )
    dim = feature_dim(image_encoder.encoder, (side, side), trained=pretrained != RANDOM)
    classifier = nn.Linear(dim, num_classes, bias=False)
    objective = METHODS[method].build(dim, num_classes, values)
    learner = Learner(
        image_encoder, classifier, objective, dropout=options.dropout, freeze_bn=options.freeze_bn
    )
    return learner, Initial(origin, _sha256(pretrained))


def _sha256(pretrained: str) -> str:
    if pretrained in (EMBEDDED, RANDOM):
        return pretrained
    digest = hashlib.sha256()
    with Path(pretrained).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
