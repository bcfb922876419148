"""MoCo-v2's augmentation (Chen et al., 2020) of a whole batch at once, on the batch's device.

Every image has its own random numbers, yet the work is three matrix products for the batch:

- Cropping, resizing (bilinear, antialiased as in Pillow), flipping and Gaussian blur are linear
  and act on rows and columns apart, so each image is multiplied by one matrix from either side.
- Brightness, contrast, saturation, hue (a rotation of the chroma of YIQ) and grey scale are one
  3x3 matrix and an offset for each image. torchvision clamps to [0, 1] after each of them, which
  is the only reason why their order matters there; here they are clamped once, at the end.

Strengths and shares are those of MoCo-v2 (lightly's `MoCoV2Transform`), but for the blur, whose
widths of 0.1 to 2 pixels were meant for images of 224 pixels.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

MIN_SCALE = 0.2  # of a crop's area
RATIOS = (3 / 4, 4 / 3)
CROP_TRIES = 10
JITTER_SHARE = 0.8
BRIGHTNESS = CONTRAST = SATURATION = 0.4
HUE = 0.1  # of a full turn
GREY_SHARE = 0.2
BLUR_SHARE = 0.5
BLUR_WIDTHS = (0.1, 1.0)  # standard deviation, pixels


@functools.cache
def yiq_matrices(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return RGB to YIQ and back, (3, 3) each; kept, since copying them would make a GPU wait."""
    to_yiq = torch.tensor(
        [[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]
    )
    return to_yiq.to(device), torch.linalg.inv(to_yiq).to(device)


class Boxes(NamedTuple):
    """Crops, (n,) each, in pixels; fractions of a pixel are allowed."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw uniform numbers on the generator's device."""
    draws = torch.rand(shape, generator=generator, device=generator.device)
    return low + (high - low) * draws


def random_boxes(n: int, height: int, width: int, generator: torch.Generator) -> Boxes:
    """Draw n crops as `RandomResizedCrop` does; where ten tries do not fit, the whole image."""
    area = uniform((n, CROP_TRIES), MIN_SCALE, 1, generator) * height * width
    logs = math.log(RATIOS[0]), math.log(RATIOS[1])
    ratio = uniform((n, CROP_TRIES), *logs, generator).exp()
    heights, widths = (area / ratio).sqrt(), (area * ratio).sqrt()
    fits = (heights <= height) & (widths <= width)
    first = fits.int().argmax(1, keepdim=True)
    found = fits.gather(1, first).squeeze(1)
    heights = heights.gather(1, first).squeeze(1).masked_fill(~found, height)
    widths = widths.gather(1, first).squeeze(1).masked_fill(~found, width)
    top = uniform((n,), 0, 1, generator) * (height - heights)
    left = uniform((n,), 0, 1, generator) * (width - widths)
    return Boxes(top, left, heights, widths)


def resize_matrices(start: Tensor, extent: Tensor, inputs: int, outputs: int) -> Tensor:
    """Return the (n, outputs, inputs) that resample [start, start + extent) to `outputs` pixels."""
    step = (extent / outputs).view(-1, 1, 1)
    support = step.clamp(min=1)
    positions = torch.arange(outputs, device=start.device).view(1, -1, 1) + 0.5
    centres = start.view(-1, 1, 1) + positions * step - 0.5
    distance = (torch.arange(inputs, device=start.device) - centres).abs()
    weights = (1 - distance / support).clamp(min=0)
    return weights / weights.sum(2, keepdim=True)


def blur_matrices(widths: Tensor, size: int) -> Tensor:
    """Return the (n, size, size) of a Gaussian blur of the given standard deviations (n,)."""
    pixels = torch.arange(size, device=widths.device)
    squares = (pixels - pixels.view(-1, 1)).square()
    weights = torch.exp(-squares / (2 * widths.view(-1, 1, 1).square()))
    return weights / weights.sum(2, keepdim=True)


def colour_transform(
    means: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turns: Tensor
) -> tuple[Tensor, Tensor]:
    """Return matrices (n, 3, 3) and offsets (n, 3, 1) that act on RGB.

    Args:
        means: colour of each image, (n, 3); contrast is about its grey value.
        brightness: factors (n,), as are contrast and saturation (0 is grey).
        turns: of the hue, (n,), as parts of a full turn.
    """
    to_yiq, from_yiq = yiq_matrices(means.device)
    cosine, sine = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    rotation = torch.stack([cosine, -sine, sine, cosine], 1).view(-1, 2, 2)
    chroma = from_yiq[:, 1:] @ rotation @ to_yiq[1:]
    grey = to_yiq[:1].expand(3, 3)
    gain = (brightness * contrast).view(-1, 1, 1)
    matrices = gain * (grey + saturation.view(-1, 1, 1) * chroma)
    offsets = (brightness * (1 - contrast)).view(-1, 1, 1) * (means @ grey.T).unsqueeze(2)
    return matrices, offsets


def random_views(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw one augmented view of each image.

    Args:
        images: (n, 3, h, w) uint8.
        size: pixels of the square views.
        generator: on the images' device.

    Returns:
        Views (n, 3, size, size) in [0, 1], float32.
    """
    n, _, height, width = images.shape
    boxes = random_boxes(n, height, width, generator)
    sharp = uniform((n,), 0, 1, generator) >= BLUR_SHARE
    # A blur this narrow is the identity.
    blur = blur_matrices(uniform((n,), *BLUR_WIDTHS, generator).masked_fill(sharp, 1e-3), size)
    rows = blur @ resize_matrices(boxes.top, boxes.height, height, size)
    columns = blur @ resize_matrices(boxes.left, boxes.width, width, size)
    flipped = (uniform((n,), 0, 1, generator) < 0.5).view(-1, 1, 1)
    columns = columns.flip(1).where(flipped, columns)
    views = rows.unsqueeze(1) @ (images.float() / 255) @ columns.mT.unsqueeze(1)

    plain = uniform((n,), 0, 1, generator) >= JITTER_SHARE
    brightness, contrast, saturation = (
        uniform((n,), 1 - strength, 1 + strength, generator).masked_fill(plain, 1)
        for strength in (BRIGHTNESS, CONTRAST, SATURATION)
    )
    turns = uniform((n,), -HUE, HUE, generator).masked_fill(plain, 0)
    grey = uniform((n,), 0, 1, generator) < GREY_SHARE
    matrices, offsets = colour_transform(
        views.mean((2, 3)), brightness, contrast, saturation.masked_fill(grey, 0), turns
    )
    coloured = torch.baddbmm(offsets, matrices, views.flatten(2))
    return coloured.clamp(0, 1).view_as(views)
