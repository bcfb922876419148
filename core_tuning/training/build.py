"""Builds the data, encoder and objective that a command line describes."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from torch import nn
from torch.utils.data import DataLoader

from core_tuning.data import Splits, build_transforms, default_recipe, load_splits
from core_tuning.data.images import LabelledImages
from core_tuning.data.loading import SeededTransform, evaluation_loader
from core_tuning.data.transforms import RECIPES
from core_tuning.encoders import (
    NO_NORMALISATION,
    SMALL_ENCODER,
    ImageEncoder,
    Normalisation,
    feature_dim,
)
from core_tuning.errors import UserError
from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss
from core_tuning.pretrained import EMBEDDED, RANDOM, default_encoder, load_image_encoder

from .learner import Learner
from .randomness import seed_everything

NORMALISATIONS = {"checkpoint": None, "imagenet": Normalisation(), "none": NO_NORMALISATION}


class Data(NamedTuple):
    """A data set's splits behind their transforms."""

    splits: Splits
    train: SeededTransform
    validation: DataLoader | None
    test: DataLoader
    recipe: str
    image_size: int


def build_data(options: argparse.Namespace, seed: int) -> Data:
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
    recipe = recipe_of(options)
    transforms = build_transforms(recipe, options.image_size)

    def loader(images: LabelledImages) -> DataLoader:
        dataset = SeededTransform(images, transforms.evaluate)
        return evaluation_loader(dataset, options.batch_size, options.workers)

    return Data(
        splits,
        SeededTransform(splits.train, transforms.train),
        loader(splits.validation) if len(splits.validation) else None,
        loader(splits.test),
        recipe,
        image_size(options),
    )


def recipe_of(options: argparse.Namespace) -> str:
    """The name of the transforms that --transforms has, or stands for when it is left out."""
    return options.transforms or default_recipe(options.dataset)


def image_size(options: argparse.Namespace) -> int:
    """Side of the network's input in pixels."""
    return options.image_size or RECIPES[recipe_of(options)][1]


def build_learner(options: argparse.Namespace, num_classes: int, seed: int) -> tuple[Learner, str]:
    """Build encoder, classifier and objective; random weights depend on the seed alone.

    Returns:
        The learner, and what its encoder was initialised from, for the results.
    """
    seed_everything(seed)
    image_encoder, origin = build_image_encoder(options)
    side = image_size(options)
    trained = options.pretrained != RANDOM
    dim = feature_dim(image_encoder.encoder, (side, side), trained=trained)
    classifier = nn.Linear(dim, num_classes, bias=False)
    return Learner(image_encoder, classifier, build_objective(options, dim, num_classes)), origin


def build_image_encoder(options: argparse.Namespace) -> tuple[ImageEncoder, str]:
    """Load the checkpoint that --pretrained names into the encoder that --encoder names."""
    pretrained = options.pretrained
    if pretrained is None:
        if options.dataset != "emoji_domains":
            raise UserError(
                f"--pretrained is missing for {options.dataset}: name a self-supervised "
                "checkpoint, or 'random' for an encoder without pre-training."
            )
        pretrained = EMBEDDED
    return load_image_encoder(
        options.encoder or default_encoder(pretrained),
        pretrained,
        normalisation=NORMALISATIONS[options.normalisation],
    )


def encoder_name(options: argparse.Namespace) -> str:
    """The name that --encoder has, or stands for when it is left out."""
    if options.encoder is not None:
        return options.encoder
    embedded = options.pretrained in (None, "embedded") and options.dataset == "emoji_domains"
    return SMALL_ENCODER if embedded or options.pretrained == "embedded" else "resnet50"


def build_objective(options: argparse.Namespace, dim: int, num_classes: int) -> nn.Module:
    """The objective of --method, for features (n, dim)."""
    if options.method == "ce":
        return CrossEntropyLoss(num_classes, mixing=options.mixing, alpha=options.alpha)
    shared: dict[str, Any] = {
        "eta": options.eta,
        "temperature": options.temperature,
        "projection_dim": options.projection_dim,
        "projection_depth": options.projection_depth,
    }
    if options.method == "ce_con":
        return CEContrastiveLoss(dim, **shared)
    return CoreTuningLoss(
        dim,
        num_classes,
        **shared,
        alpha=options.alpha,
        lambda_n=options.lambda_n,
        lambda_p=options.lambda_p,
        focal=options.focal,
        mixing=options.mixing,
        positives=options.positives,
        smooth_classifier=options.smooth_classifier,
        variant=options.variant,
    )
