"""Which images, at which size, and what an eps is worth at another."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from core_tuning.data import RECIPES, build_transforms
from core_tuning.data.images import DecodedImages
from core_tuning.errors import UserError
from core_tuning.robustness.measure import as_float
from core_tuning.robustness.pixels import (
    ResizedInside,
    choose_images,
    describe_sizes,
    geometry,
    magnification,
    native_l2,
    read_pixels,
)


def pictures(*sizes):
    generator = np.random.default_rng(0)
    arrays = [generator.integers(64, 192, (*size, 3), dtype=np.uint8) for size in sizes]
    return DecodedImages(arrays, list(range(len(sizes))), [str(i) for i in range(len(sizes))])


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_only_resizes_crops_and_converts(recipe):
    """What ResizedInside leaves out changes no pixel's place or value."""
    steps = build_transforms(recipe, 32).evaluate.transforms
    moving = (v2.Resize, v2.CenterCrop)
    assert geometry(build_transforms(recipe, 32).evaluate)
    converting = (v2.ToImage, v2.ToDtype, v2.ToPureTensor)
    assert all(isinstance(step, (*moving, *converting)) for step in steps)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("size", [(20, 20), (50, 64)])
def test_resizing_inside_is_the_transform_up_to_rounding(recipe, size):
    transform = build_transforms(recipe, 32).evaluate
    pixels = read_pixels(pictures(size), [0], transform, "native")
    inside = ResizedInside(nn.Identity(), transform)(as_float(pixels.attacked[0].images))
    usual = as_float(pixels.network.images)
    assert inside.shape == usual.shape
    # PIL rounds to bytes after each direction.
    assert float((inside - usual).abs().max()) <= 2 / 255


def test_resizing_inside_passes_gradients():
    transform = build_transforms("imagenet", 32).evaluate
    images = torch.rand(2, 3, 40, 50, requires_grad=True)
    ResizedInside(nn.Identity(), transform)(images).sum().backward()
    assert images.grad is not None and float(images.grad.abs().sum()) > 0


def test_the_networks_input_is_exactly_the_transforms():
    images = pictures((20, 24), (30, 20))
    for recipe in RECIPES:
        transform = build_transforms(recipe, 32).evaluate
        pixels = read_pixels(images, [1, 0], transform, "input")
        for position, index in enumerate([1, 0]):
            expected = transform(images.image(index))
            assert torch.equal(as_float(pixels.network.images)[position], expected)
        assert pixels.network.labels.tolist() == [1, 0]
        assert pixels.attacked == [pixels.network]
        assert pixels.sizes == [(30, 20), (20, 24)]


def test_native_images_are_grouped_by_size_with_their_labels():
    images = pictures((8, 9), (10, 10), (8, 9))
    transform = build_transforms("small", 16).evaluate
    pixels = read_pixels(images, [2, 1, 0], transform, "native")
    assert [group.positions.tolist() for group in pixels.attacked] == [[0, 2], [1]]
    shapes = [tuple(group.images.shape) for group in pixels.attacked]
    assert shapes == [(2, 3, 8, 9), (1, 3, 10, 10)]
    assert [group.labels.tolist() for group in pixels.attacked] == [[2, 0], [1]]
    first = pixels.attacked[0].images[1].permute(1, 2, 0).numpy()
    assert (first == images.items[0]).all()


@pytest.mark.parametrize(
    ("recipe", "size", "expected"),
    [
        ("cifar", (32, 32), 8.0),  # to 256
        ("small", (20, 80), math.sqrt(256 * 256 / 1600)),
        ("imagenet", (128, 200), round(256 * 256 / 224) / 128),  # the shorter side
    ],
)
def test_magnification(recipe, size, expected):
    transform = build_transforms(recipe, 256).evaluate
    assert magnification(transform, size) == pytest.approx(expected, rel=0.01)


def test_eps_at_the_images_own_resolution():
    """The reference case: an L2 ball of 0.5 at 256 pixels is one of 0.0625 at CIFAR's 32."""
    transform = build_transforms("cifar", 256).evaluate
    pixels = read_pixels(pictures((32, 32)), [0], transform, "input")
    assert native_l2("l2", 0.5, "input", pixels, transform) == 0.0625
    own = pytest.approx(8 / 255 * math.sqrt(3 * 32 * 32))
    assert native_l2("linf", 8 / 255, "input", pixels, transform) == own
    assert native_l2("linf", 8 / 255, "native", pixels, transform) == own
    assert native_l2("l2", 0.5, "native", pixels, transform) == 0.5


def test_a_smooth_change_grows_as_the_formula_says():
    transform = build_transforms("cifar", 256).evaluate
    change = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), 32, mode="bicubic")
    enlarged = geometry(transform)[0](change)
    assert float(enlarged.norm() / change.norm()) == pytest.approx(8, rel=0.03)


def test_the_budget_of_each_size():
    transform = build_transforms("small", 40).evaluate
    pixels = read_pixels(pictures((10, 10), (20, 20), (40, 40)), [0, 1, 2], transform, "input")
    assert native_l2("l2", 1.0, "input", pixels, transform) == 0.5


def test_sizes_in_words():
    assert describe_sizes([(48, 48), (48, 48)]) == "48x48"
    many = [(10, 20), (11, 19), (12, 18), (13, 17)]
    assert describe_sizes(many) == "various (10 to 13 high, 17 to 20 wide)"


def test_images_are_chosen_by_the_seed():
    assert choose_images(50, 50, 0) == list(range(50))
    few, more = choose_images(50, 5, 3), choose_images(50, 20, 3)
    assert set(few) < set(more) and few == sorted(few) and len(more) == 20
    assert choose_images(50, 20, 4) != more
    with pytest.raises(UserError, match="--n is 51 and the split has 50 images"):
        choose_images(50, 51, 0)
