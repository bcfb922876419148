"""The pixels that are attacked: the network's input, or the images at their own resolution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms

from core_tuning.data.images import LabelledImages
from core_tuning.data.loading import load_batches
from core_tuning.data.splits import seeded_generator
from core_tuning.errors import UserError
from core_tuning.stopping import worker_setup

# A stream apart from those that divide the data sets at the same seed.
_CHOICE = 30
# Where several native sizes are listed no more.
_MOST_SIZES = 3

Size = tuple[int, int]


class Group(NamedTuple):
    """Images of one size.

    Attributes:
        images: (m, 3, h, w), bytes or float32 in [0, 1].
        labels: (m,), the true classes.
        positions: (m,), of each image among all that are measured.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor


def group(images: Tensor, labels: Tensor) -> Group:
    """Images (n, 3, h, w) and labels (n,) that are all there is."""
    return Group(images, labels, torch.arange(len(labels)))


class Pixels(NamedTuple):
    """The images of an evaluation.

    Attributes:
        network: all of them as the network's input.
        attacked: what is attacked: `network` alone, or the images at their own resolution, a
            group for each size.
        sizes: (height, width) of each image at its own resolution.
    """

    network: Group
    attacked: list[Group]
    sizes: list[Size]


class ResizedInside(nn.Module):
    """Resizes and crops images of their own resolution, differentiably, before a model.

    Args:
        model: images (n, 3, S, S) in [0, 1] to logits (n, K).
        evaluation: the transform that the model's images otherwise go through; its resizing
            (antialiased) and its cropping are done to tensors, in float32. PIL rounds to bytes
            where this does not, so that single predictions may differ.
    """

    def __init__(self, model: nn.Module, evaluation: Callable[..., Any]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(geometry(evaluation))
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1] of any size: logits (n, K)."""
        for step in self.steps:
            images = step(images)
        # Bicubic kernels overshoot, which PIL clips too.
        return self.model(images.clamp(0, 1))


def geometry(evaluation: Callable[..., Any]) -> list[nn.Module]:
    """Return the steps of an evaluation transform that move pixels."""
    assert isinstance(evaluation, v2.Compose)
    return [step for step in evaluation.transforms if isinstance(step, (v2.Resize, v2.CenterCrop))]


@cache
def magnification(evaluation: Callable[..., Any], size: Size) -> float:
    """Return the factor by which a transform enlarges a side of an image (h, w) of this size.

    It is the geometric mean of both sides' where they differ; a crop enlarges nothing.
    """
    resized = torch.empty(1, *size, dtype=torch.uint8)
    for step in geometry(evaluation):
        if isinstance(step, v2.Resize):
            resized = step(resized)
    return math.sqrt(resized.shape[-2] * resized.shape[-1] / (size[0] * size[1]))


def native_l2(
    norm: str, eps: float, space: str, pixels: Pixels, evaluation: Callable[..., Any]
) -> float:
    """Say how large a budget is as an L2 norm at the images' own resolution: their median.

    Enlarging an image s times along each side repeats each pixel's change s^2 times, up to the
    interpolation, so that squared norms grow s^2 times and norms s times: eps at the network's
    input is eps / s at the image's own resolution. A change of each pixel by at most eps
    (L-infinity) keeps that bound, and its L2 norm is at most eps sqrt(3 h w).
    """

    def largest(height: int, width: int) -> float:
        return eps if norm == "l2" else eps * math.sqrt(3 * height * width)

    if space == "native":
        return statistics.median(largest(*size) for size in pixels.sizes)
    at_input = largest(*pixels.network.images.shape[-2:])
    return statistics.median(at_input / magnification(evaluation, size) for size in pixels.sizes)


def describe_sizes(sizes: Sequence[Size]) -> str:
    """Write sizes as "48x48", or as "various" with their range, height first."""
    different = sorted(set(sizes))
    if len(different) <= _MOST_SIZES:
        return ", ".join(f"{height}x{width}" for height, width in different)
    heights, widths = zip(*different, strict=True)
    return f"various ({min(heights)} to {max(heights)} high, {min(widths)} to {max(widths)} wide)"


def choose_images(total: int, n: int, seed: int) -> list[int]:
    """Choose `n` of `total` indices, in ascending order.

    The choice depends on the seed alone, and a smaller one is a part of a larger one.

    Raises:
        UserError: there are fewer than `n`.
    """
    if n > total:
        raise UserError(
            f"--n is {n} and the split has {total} images: give --n {total} or less, or --n all."
        )
    return sorted(seeded_generator(seed, _CHOICE).permutation(total)[:n].tolist())


@dataclass(frozen=True)
class _Decoded(Dataset[tuple[Tensor, Tensor, int]]):
    """Each image as the network's input, and at its own resolution, both as bytes."""

    images: LabelledImages
    evaluation: Callable[[Image.Image], Tensor]
    indices: list[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, int]:
        image, label = self.images[self.indices[position]]
        # Exact: the transforms end with bytes that are divided by 255.
        network = self.evaluation(image).mul(255).round().to(torch.uint8)
        return network, transforms.pil_to_tensor(image), label


def read_pixels(
    images: LabelledImages,
    indices: list[int],
    evaluation: Callable[[Image.Image], Tensor],
    space: str,
    *,
    workers: int = 0,
) -> Pixels:
    """Read images into memory, as bytes.

    Args:
        images: the split.
        indices: of it, in the order wanted.
        evaluation: PIL image to the network's input (3, S, S) in [0, 1].
        space: "input" or "native".
        workers: processes that read.

    Raises:
        UserError: an image cannot be read.
    """
    loader = DataLoader(
        _Decoded(images, evaluation, indices),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=worker_setup() if workers else None,
        generator=torch.Generator(),
    )
    network, natives, labels, sizes = [], [], [], []
    for as_input, native, label in load_batches(loader):
        network.append(as_input)
        labels.append(int(label))
        sizes.append((native.shape[-2], native.shape[-1]))
        if space == "native":
            natives.append(native)
    whole = group(torch.stack(network), torch.tensor(labels))
    if space == "input":
        return Pixels(whole, [whole], sizes)
    attacked = []
    for size in dict.fromkeys(sizes):
        positions = torch.tensor([at for at, each in enumerate(sizes) if each == size])
        of_size = torch.stack([natives[at] for at in positions.tolist()])
        attacked.append(Group(of_size, whole.labels[positions], positions))
    return Pixels(whole, attacked, sizes)
