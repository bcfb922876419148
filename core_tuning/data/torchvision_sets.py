"""The paper's data sets that torchvision reads, with the splits of Table 10."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

from torchvision import datasets

from ..errors import UserError
from .checking import reason_of
from .folders import require_folder, require_same_classes, scan_classes
from .images import ImageArray, ImageFiles
from .splits import Source, split_per_class

CALTECH_IMAGES_PER_CLASS = 30
# Fixed, and not the run's seed: runs of several seeds then share one test set.
CALTECH_SEED = 0


@contextmanager
def reading(
    name: str, root: Path, layout: str, download: bool, *, downloadable: bool = True
) -> Iterator[None]:
    """Turn what torchvision raises about files into a UserError that says what was expected."""
    hint = "; --download fetches the set" if downloadable else ""
    if not download:
        require_folder(root, f"{layout} in it{hint}")
    try:
        yield
    except URLError as error:
        raise UserError(
            f"'{name}' could not be downloaded into {root} ({error.reason}): check the network, "
            f"or lay out {layout} there by hand."
        ) from error
    except FileNotFoundError as error:
        raise UserError(
            f"'{name}' lacks the file {error.filename}: expected {layout} in {root}{hint}."
        ) from error
    # A damaged list, matrix or pickle makes its reader raise anything.
    except Exception as error:
        reason = reason_of(error).removesuffix("You can use download=True to download it")
        raise UserError(
            f"'{name}' cannot be read from {root} ({reason.strip(' .')}): expected {layout} in it"
            f"{hint}."
        ) from error


def cifar(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read CIFAR-10 or CIFAR-100: 50,000 and 10,000 images of 32x32."""
    dataset = datasets.CIFAR100 if name == "cifar100" else datasets.CIFAR10
    with reading(name, root, layout, download):
        parts = [dataset(root, train=train, download=download) for train in (True, False)]
    train, test = (ImageArray(part.data, part.targets, part.classes) for part in parts)
    return Source(train, test, "torchvision train/test")


def _files(parts: list[Any], root: Path, paths: str = "_image_files") -> ImageFiles:
    """Concatenate torchvision data sets of the same classes; `paths` is an attribute's name."""
    return ImageFiles(
        [path for part in parts for path in getattr(part, paths)],
        [label for part in parts for label in part._labels],
        parts[0].classes,
        root=root,
    )


def dtd(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read DTD's partition 1, training and validation images concatenated."""
    with reading(name, root, layout, download):
        train, val, test = (
            datasets.DTD(root, split=split, partition=1, download=download)
            for split in ("train", "val", "test")
        )
    for part, other in ((val, "val1.txt"), (test, "test1.txt")):
        require_same_classes(
            part.classes, train.classes, f"The file {root / 'dtd/dtd/labels' / other}", "train1.txt"
        )
    return Source(
        _files([train, val], root), _files([test], root), "torchvision trainval/test, partition 1"
    )


def aircraft(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read FGVC Aircraft with its 100 variants as classes."""
    with reading(name, root, layout, download):
        train, test = (
            datasets.FGVCAircraft(root, split, annotation_level="variant", download=download)
            for split in ("trainval", "test")
        )
    return Source(
        _files([train], root), _files([test], root), "torchvision trainval/test, variants"
    )


def pets(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read Oxford-IIIT Pets with its 37 breeds as classes."""
    with reading(name, root, layout, download):
        train, test = (
            datasets.OxfordIIITPet(root, split, download=download) for split in ("trainval", "test")
        )
    annotations = root / "oxford-iiit-pet" / "annotations"
    require_same_classes(
        test.classes, train.classes, f"The file {annotations / 'test.txt'}", "trainval.txt"
    )
    return Source(
        _files([train], root, "_images"),
        _files([test], root, "_images"),
        "torchvision trainval/test",
    )


def flowers(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read Oxford Flowers in its official split, which is not the paper's (Kaggle's) one."""
    with reading(name, root, layout, download):
        parts = [
            datasets.Flowers102(root, split, download=download)
            for split in ("train", "val", "test")
        ]
    for part in parts:
        if not hasattr(part, "classes"):  # before torchvision 0.22
            part.classes = [str(number) for number in range(1, 103)]
    return Source(
        _files(parts[:2], root),
        _files(parts[2:], root),
        "torchvision train+val/test, not Kaggle's split",
    )


def cars(root: Path, layout: str) -> Source:
    """Read Stanford Cars, which torchvision reads but can no longer download."""
    with reading("cars", root, layout, download=False, downloadable=False):
        parts = [datasets.StanfordCars(root, split) for split in ("train", "test")]
    train, test = (
        ImageFiles(
            [path for path, _ in part._samples],
            [label for _, label in part._samples],
            part.classes,
            root=root,
        )
        for part in parts
    )
    return Source(train, test, "torchvision train/test")


def caltech101(name: str, root: Path, layout: str, download: bool) -> Source:
    """Read Caltech-101 and its background class: 30 images a class to train on, the rest to test.

    torchvision leaves the background class out and Table 10 counts it, hence only the download is
    torchvision's.
    """
    with reading(name, root, layout, download):
        if download:
            datasets.Caltech101(root, download=True)
    folder = require_folder(
        root / "caltech101" / "101_ObjectCategories",
        "class/*.jpg in it; --download fetches the set",
    )
    images = scan_classes(folder, root=root)
    train, test = split_per_class(images.labels, CALTECH_IMAGES_PER_CLASS, CALTECH_SEED)
    return Source(
        images.subset(train),
        images.subset(test),
        f"{CALTECH_IMAGES_PER_CLASS} a class drawn with seed {CALTECH_SEED}/the rest",
    )
