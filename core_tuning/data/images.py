"""Labelled images, read as RGB: from files or decoded in memory."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..errors import UserError
from .modes import to_rgb, upright
from .names import shown
from .scan import each_file, file_size, open_image, reason_of

ImageAndLabel = tuple[Image.Image, int]
Images = TypeVar("Images", bound="LabelledImages")


def read_image(path: str | os.PathLike[str], *, turn: bool = False) -> Image.Image:
    """Read an image file as RGB.

    Args:
        path: of the file.
        turn: turn the image as its EXIF orientation says.

    Raises:
        UserError: the file is missing, truncated, not an image, or of a mode without a range.
    """
    try:
        with open_image(path) as image:
            return to_rgb(upright(image) if turn else image)
    # A damaged file makes PIL raise anything: a broken PNG, for one, is a SyntaxError.
    except Exception as error:
        raise UserError(
            f"The image {shown(path)} cannot be read ({reason_of(error)}): "
            "replace it with an intact file or remove it."
        ) from error


class LabelledImages(Dataset[ImageAndLabel], ABC):
    """Images with labels and without transforms.

    Attributes:
        items: what each image is read from.
        labels: the label of each image, an index of `classes`.
        classes: the name of each class.
    """

    def __init__(self, items: Iterable[Any], labels: Iterable[int], classes: Iterable[str]) -> None:
        self.items = list(items)
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
    def identity(self) -> Iterator[bytes | memoryview]:
        """Yield what tells these images from others, wherever they lie: for a fingerprint.

        Raises:
            UserError: a file is missing or is no file.
        """

    def subset(self: Images, indices: Sequence[int]) -> Images:
        """Return the images of these indices, in this order."""
        chosen = copy(self)
        chosen.items = [self.items[i] for i in indices]
        chosen.labels = [self.labels[i] for i in indices]
        return chosen

    def joined(self: Images, others: Sequence[Images]) -> Images:
        """Return these images and then those of others of the same data set."""
        all_of_them = copy(self)
        all_of_them.items = [item for part in (self, *others) for item in part.items]
        all_of_them.labels = [label for part in (self, *others) for label in part.labels]
        return all_of_them


class ImageFiles(LabelledImages):
    """Images in files, read when they are asked for.

    Args:
        paths: of the files.
        labels: of the images.
        classes: names.
        root: the data set's folder, below which the paths tell the images apart.
        turn: turn images as their EXIF orientation says. Cameras store it; the data sets that are
            compared with DomainBed's or torchvision's are read as these do, which ignore it.
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        labels: Iterable[int],
        classes: Iterable[str],
        *,
        root: str | os.PathLike[str] = "",
        turn: bool = False,
    ) -> None:
        super().__init__(map(os.fspath, paths), labels, classes)
        self.root = os.fspath(root)
        self.turn = turn

    @classmethod
    def of_classes(
        cls,
        paths: Mapping[str, Sequence[str]],
        classes: Sequence[str],
        root: Path,
        *,
        turn: bool = False,
    ) -> ImageFiles:
        """Make one set of the images of each class, in the order of `classes`."""
        labels = [label for label, name in enumerate(classes) for _ in paths[name]]
        every = [path for name in classes for path in paths[name]]
        return cls(every, labels, classes, root=root, turn=turn)

    @property
    def paths(self) -> list[str]:
        """The file of each image."""
        return self.items

    def image(self, index: int) -> Image.Image:
        return read_image(self.items[index], turn=self.turn)

    def identity(self) -> Iterator[bytes | memoryview]:
        sizes = each_file(
            self.items,
            file_size,
            advice="restore, replace or remove them",
            task="looking at files",
        )
        above = f"{self.root.rstrip('/')}/"
        for path, label, size in zip(self.items, self.labels, sizes, strict=True):
            yield os.fsencode(path.removeprefix(above)) + f"\0{label}\0{size}\0".encode()


class DecodedImages(LabelledImages):
    """Images decoded in memory: arrays of bytes (h, w, 3) of any sizes, or one (n, h, w, 3)."""

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self.items[index])

    def identity(self) -> Iterator[bytes | memoryview]:
        for array, label in zip(self.items, self.labels, strict=True):
            yield f"{array.shape} {label}".encode()
            yield np.ascontiguousarray(array).reshape(-1).data


def decoded_bytes(images: LabelledImages, sample: int = 32) -> int:
    """Estimate what all images would take in memory, from `sample` of them spread evenly."""
    chosen = np.linspace(0, len(images) - 1, min(sample, len(images))).astype(int)
    sizes = [images.image(int(index)).size for index in chosen]
    return round(len(images) * float(np.mean([3 * width * height for width, height in sizes])))


def decode(images: LabelledImages) -> DecodedImages:
    """Read every image into memory."""
    arrays = [np.asarray(images.image(index)) for index in range(len(images))]
    return DecodedImages(arrays, images.labels, images.classes)
