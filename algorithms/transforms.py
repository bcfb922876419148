"""DomainBed's pre-processing, normalised as DomainBed does."""

from __future__ import annotations

from torchvision.transforms import v2

from core_tuning.data import Transforms, build_transforms
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD


def domain_transforms(size: int) -> Transforms:
    """Transforms to images (3, size, size), normalised by ImageNet's mean and deviation.

    A seed draws the same crops, flips and colours as in DomainBed.
    """
    recipe = build_transforms("domainbed", size)
    normalise = v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return Transforms(
        v2.Compose([recipe.train, normalise]), v2.Compose([recipe.evaluate, normalise])
    )
