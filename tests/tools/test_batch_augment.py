"""MoCo's augmentation of a batch, against torchvision's and Pillow's operations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import functional as TF


@pytest.fixture(scope="module")
def tool(import_tool):
    return import_tool("batch_augment")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(n, side=40):
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=generator(7))


def test_views_are_images_and_repeat_by_seed(tool):
    images = random_images(6)
    views = tool.random_views(images, 24, generator(1))
    assert (views.shape, views.dtype) == ((6, 3, 24, 24), torch.float32)
    assert views.min() >= 0
    assert views.max() <= 1
    torch.testing.assert_close(tool.random_views(images, 24, generator(1)), views, rtol=0, atol=0)
    assert not torch.equal(tool.random_views(images, 24, generator(2)), views)


def test_images_have_their_own_draws_and_do_not_mix(tool):
    images = random_images(1).expand(8, -1, -1, -1).clone()
    views = tool.random_views(images, 24, generator(1))
    assert all(not torch.equal(views[0], other) for other in views[1:])
    images[3] = 0
    changed = tool.random_views(images, 24, generator(1))
    same = [
        torch.allclose(one, other, atol=1e-6) for one, other in zip(views, changed, strict=True)
    ]
    assert same == [True] * 3 + [False] + [True] * 4


def test_crops_follow_random_resized_crop(tool):
    top, left, height, width = tool.random_boxes(20_000, 64, 64, generator())
    assert min(top.min(), left.min()) >= 0
    assert max((top + height).max(), (left + width).max()) <= 64 + 1e-4
    area, ratio = height * width / 64**2, width / height
    assert 0.2 - 1e-6 <= area.min() < 0.21
    assert 0.99 < area.max() <= 1
    assert math.isclose(ratio.min(), 3 / 4, rel_tol=0.01)
    assert math.isclose(ratio.max(), 4 / 3, rel_tol=0.01)
    # Areas are uniform where any ratio fits, which is so up to 3/4 of the image.
    small = area[area < 0.75]
    assert math.isclose(small.mean(), (0.2 + 0.75) / 2, rel_tol=0.01)


def test_a_crop_that_cannot_fit_is_the_whole_image(tool):
    top, left, height, width = tool.random_boxes(100, 8, 800, generator())
    assert (top.max(), left.max()) == (0, 0)
    assert (height.unique().tolist(), width.unique().tolist()) == ([8], [800])


@pytest.mark.parametrize("size", [24, 40, 64])
def test_resizing_equals_torchvisions_antialiased(tool, size):
    images = random_images(2).float()
    whole = tool.resize_matrices(torch.zeros(2), torch.full((2,), 40.0), 40, size).unsqueeze(1)
    expected = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(whole @ images @ whole.mT, expected, rtol=1e-4, atol=1e-2)


def test_blur_equals_torchvisions_inside(tool):
    images = random_images(2).float()
    matrices = tool.blur_matrices(torch.tensor([0.3, 1.0]), 40).unsqueeze(1)
    blurred = matrices @ images @ matrices.mT
    for image, width, found in zip(images, (0.3, 1.0), blurred, strict=True):
        expected = TF.gaussian_blur(image, [13, 13], [width, width])
        torch.testing.assert_close(
            found[:, 6:-6, 6:-6], expected[:, 6:-6, 6:-6], rtol=1e-3, atol=0.05
        )


def apply(tool, images, brightness=1.0, contrast=1.0, saturation=1.0, turns=0.0):
    factors = [
        torch.full((len(images),), value) for value in (brightness, contrast, saturation, turns)
    ]
    matrices, offsets = tool.colour_transform(images.mean((2, 3)), *factors)
    return torch.baddbmm(offsets, matrices, images.flatten(2)).view_as(images)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"brightness": 1.3}, lambda images: TF.adjust_brightness(images, 1.3)),
        ({"contrast": 0.7}, lambda images: TF.adjust_contrast(images, 0.7)),
        ({"saturation": 1.2}, lambda images: TF.adjust_saturation(images, 1.2)),
        ({"saturation": 0.0}, lambda images: TF.rgb_to_grayscale(images, 3)),
    ],
)
def test_colours_equal_torchvisions(tool, factors, expected):
    # Of little contrast, so that nothing is clamped.
    images = 0.4 + random_images(2).float() / 255 * 0.2
    torch.testing.assert_close(apply(tool, images, **factors), expected(images), rtol=0, atol=1e-3)


def test_hue_keeps_brightness_and_grey_and_turns_back(tool):
    images = random_images(2).float() / 255
    turned = apply(tool, images, turns=0.1)
    assert (turned - images).abs().max() > 0.1
    torch.testing.assert_close(
        TF.rgb_to_grayscale(turned), TF.rgb_to_grayscale(images), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(apply(tool, turned, turns=-0.1), images, rtol=0, atol=1e-4)
    grey = TF.rgb_to_grayscale(images, 3)
    torch.testing.assert_close(apply(tool, grey, turns=0.1), grey, rtol=0, atol=1e-3)


def test_shares_of_grey_and_flipped_views(tool):
    side = torch.arange(32, dtype=torch.float32) * 8
    image = torch.stack([side, 0.5 * side, 255 - side]).unsqueeze(1).expand(3, 32, 32)
    views = tool.random_views(image.to(torch.uint8).expand(4000, -1, -1, -1), 8, generator())
    grey = (views[:, 0] - views[:, 2]).abs().amax((1, 2)) < 1e-3
    assert math.isclose(grey.float().mean(), 0.2, abs_tol=0.02)
    colour = views[~grey]
    flipped = colour[:, 0, :, 0].mean(1) > colour[:, 0, :, -1].mean(1)
    assert math.isclose(flipped.float().mean(), 0.5, abs_tol=0.03)
