"""Data sets, their splits, transforms and seeded batches."""

from .catalogue import DATASETS, load_splits
from .embedded import emoji_domains_folder
from .fingerprint import check_same_images, describe_change, fingerprint
from .folder import Skipped, load_domains
from .images import LabelledImages
from .loading import EpochSampler, SeededTransform, evaluation_batches, load_batches
from .scan import scan_headers
from .splits import Splits
from .transforms import RECIPES, Transforms, build_transforms, default_recipe

__all__ = [
    "DATASETS",
    "RECIPES",
    "EpochSampler",
    "LabelledImages",
    "SeededTransform",
    "Skipped",
    "Splits",
    "Transforms",
    "build_transforms",
    "check_same_images",
    "default_recipe",
    "describe_change",
    "emoji_domains_folder",
    "evaluation_batches",
    "fingerprint",
    "load_batches",
    "load_domains",
    "load_splits",
    "scan_headers",
]
