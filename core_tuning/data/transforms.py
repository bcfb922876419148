"""The pre-processing of Appendix C.2; normalisation belongs to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from ..checks import check_choice, check_range


class Transforms(NamedTuple):
    """Maps of a PIL RGB image to a float tensor (3, h, w) in [0, 1]."""

    train: Callable[[Image.Image], Tensor]
    evaluate: Callable[[Image.Image], Tensor]


def _then_tensor(*steps: Callable[..., object]) -> v2.Compose:
    return v2.Compose(
        [*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
    )


def _imagenet(size: int) -> Transforms:
    return Transforms(
        train=_then_tensor(v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()),
        evaluate=_then_tensor(v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)),
    )


def _cifar(size: int) -> Transforms:
    larger = round(size * 272 / 256)
    bicubic = InterpolationMode.BICUBIC
    return Transforms(
        train=_then_tensor(
            v2.Resize((larger, larger), bicubic),
            v2.RandomRotation(15),
            v2.RandomCrop(size),
            v2.RandomHorizontalFlip(),
        ),
        evaluate=_then_tensor(v2.Resize((size, size), bicubic)),
    )


def _small(size: int) -> Transforms:
    return Transforms(
        train=_then_tensor(v2.RandomResizedCrop(size, scale=(0.6, 1.0)), v2.RandomHorizontalFlip()),
        evaluate=_then_tensor(v2.Resize((size, size))),
    )


def _domainbed(size: int) -> Transforms:
    return Transforms(
        train=_then_tensor(
            v2.RandomResizedCrop(size, scale=(0.7, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(0.3, 0.3, 0.3, 0.3),
            v2.RandomGrayscale(),
        ),
        evaluate=_then_tensor(v2.Resize((size, size))),
    )


RECIPES: dict[str, tuple[Callable[[int], Transforms], int]] = {
    "imagenet": (_imagenet, 224),
    "cifar": (_cifar, 256),
    "small": (_small, 48),
    "domainbed": (_domainbed, 224),
}


def build_transforms(recipe: str, image_size: int | None = None) -> Transforms:
    """Build the training and the evaluation transform of a recipe.

    `imagenet` is Appendix C.2's (random resized crops and flips; resize, then centre crop),
    `cifar` is the authors' release's (rotation; resizing without a crop), `small` is milder, for
    the embedded set's images of 48 pixels, and `domainbed` is what DomainBed does to every image
    (crops of 0.7 to 1 of the area, flips, colour jitter, grey; resizing without a crop).

    Args:
        recipe: `imagenet`, `cifar`, `small` or `domainbed`.
        image_size: side of the square output in pixels; 224, 256, 48 or 224 by default. What an
            image is resized to before a crop grows with it.

    Raises:
        UserError: no recipe has that name, or the size is out of range.
    """
    check_choice("recipe", recipe, tuple(RECIPES))
    build, size = RECIPES[recipe]
    if image_size is not None:
        check_range("image_size", image_size, "--image-size")
        size = image_size
    return build(size)


def default_recipe(dataset_name: str) -> str:
    """Return the recipe of a data set: Appendix C.2 names CIFAR and Aircraft as exceptions."""
    if dataset_name in ("cifar10", "cifar100", "aircraft"):
        return "cifar"
    if dataset_name == "emoji_domains":
        return "small"
    return "imagenet"
