"""Data sets, their splits, transforms and seeded batches."""

from .catalogue import DATASETS, load_splits
from .embedded import emoji_domains_folder
from .folders import load_domains
from .images import LabelledImages
from .loading import EpochSampler, SeededTransform, evaluation_batches, load_batches
from .splits import Splits
from .transforms import RECIPES, Transforms, build_transforms, default_recipe

__all__ = [
    "DATASETS",
    "RECIPES",
    "EpochSampler",
    "LabelledImages",
    "SeededTransform",
    "Splits",
    "Transforms",
    "build_transforms",
    "default_recipe",
    "emoji_domains_folder",
    "evaluation_batches",
    "load_batches",
    "load_domains",
    "load_splits",
]
