"""Labelled images, read as RGB: from files or from one array in memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..errors import UserError

ImageAndLabel = tuple[Image.Image, int]


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a PIL image of any mode to RGB; what is transparent becomes white."""
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, "white")
        white.alpha_composite(opaque)
        image = white
    return image.convert("RGB")


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file as RGB.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    # PIL reports broken files by all of these: a broken PNG, for one, is a SyntaxError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise UserError(
            f"The image {os.fspath(path)} cannot be read ({reason}): "
            "replace it with an intact file or remove it."
        ) from error


class LabelledImages(Dataset[ImageAndLabel], ABC):
    """Images with labels and without transforms.

    Attributes:
        labels: the label of each image, an index of `classes`.
        classes: the name of each class.
    """

    def __init__(self, labels: Sequence[int], classes: Sequence[str]) -> None:
        self.labels = [int(label) for label in labels]
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> ImageAndLabel:
        """Return (PIL RGB image, label); a UserError names a file that cannot be read."""
        return self.image(index), self.labels[index]

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Return one RGB image."""

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """Return the images of these indices, in this order."""


class ImageFiles(LabelledImages):
    """Images in files, read when they are asked for."""

    def __init__(
        self,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[int],
        classes: Sequence[str],
    ) -> None:
        super().__init__(labels, classes)
        self.paths = [os.fspath(path) for path in paths]

    def image(self, index: int) -> Image.Image:
        return read_image(self.paths[index])

    def subset(self, indices: Sequence[int]) -> ImageFiles:
        return ImageFiles(
            [self.paths[i] for i in indices], [self.labels[i] for i in indices], self.classes
        )


class ImageArray(LabelledImages):
    """Images in one array of bytes (n, h, w, 3)."""

    def __init__(self, array: np.ndarray, labels: Sequence[int], classes: Sequence[str]) -> None:
        super().__init__(labels, classes)
        self.array = array

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.array[index])

    def subset(self, indices: Sequence[int]) -> ImageArray:
        chosen = np.asarray(indices, dtype=np.int64)
        return ImageArray(self.array[chosen], [self.labels[i] for i in indices], self.classes)


class DecodedImages(LabelledImages):
    """Images of any sizes, decoded in memory: a list of arrays of bytes (h, w, 3)."""

    def __init__(
        self, arrays: Sequence[np.ndarray], labels: Sequence[int], classes: Sequence[str]
    ) -> None:
        super().__init__(labels, classes)
        self.arrays = list(arrays)

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.arrays[index])

    def subset(self, indices: Sequence[int]) -> DecodedImages:
        return DecodedImages(
            [self.arrays[i] for i in indices], [self.labels[i] for i in indices], self.classes
        )


def decoded_bytes(images: LabelledImages, sample: int = 32) -> int:
    """Estimate what all images would take in memory, from `sample` of them spread evenly."""
    chosen = np.linspace(0, len(images) - 1, min(sample, len(images))).astype(int)
    sizes = [images.image(int(index)).size for index in chosen]
    return round(len(images) * float(np.mean([3 * width * height for width, height in sizes])))


def decode(images: LabelledImages) -> DecodedImages:
    """Read every image into memory."""
    arrays = [np.asarray(images.image(index)) for index in range(len(images))]
    return DecodedImages(arrays, images.labels, images.classes)
