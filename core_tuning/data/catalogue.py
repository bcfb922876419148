"""Every data set by name, and the sizes that Table 10 prints."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from torchvision import datasets

from ..errors import UserError
from .fingerprint import fingerprint
from .folder import load_folder, require_folder
from .images import ImageFiles
from .scan import scan_headers
from .sets import (
    Place,
    Torchvision,
    caltech101,
    emoji_domains,
    flowers_kaggle,
    imagenet20,
    inat18,
)
from .splits import Source, Splits, carve_and_sample

EMBEDDED = "emoji_domains"
USERS_FOLDER = "folder"


class DataSet(NamedTuple):
    """A set that a user has on disk.

    Attributes:
        layout: what its root folder holds.
        read: reads it.
        downloadable: whether torchvision can fetch it.
    """

    layout: str
    read: Callable[[Place], Source]
    downloadable: bool = True


_TEST = {"split": "test"}
_TRAINVAL = ({"split": "trainval"},)
_TRAIN_AND_VAL = ({"split": "train"}, {"split": "val"})
_TRAIN_TEST = "torchvision train/test"
_ON_DISK = {
    "cifar10": DataSet(
        "cifar-10-batches-py/",
        Torchvision(datasets.CIFAR10, ({"train": True},), {"train": False}, _TRAIN_TEST),
    ),
    "cifar100": DataSet(
        "cifar-100-python/",
        Torchvision(datasets.CIFAR100, ({"train": True},), {"train": False}, _TRAIN_TEST),
    ),
    "dtd": DataSet(
        "dtd/dtd/images/ and dtd/dtd/labels/",
        Torchvision(datasets.DTD, _TRAIN_AND_VAL, _TEST, "torchvision trainval/test, partition 1"),
    ),
    "aircraft": DataSet(
        "fgvc-aircraft-2013b/data/",
        Torchvision(datasets.FGVCAircraft, _TRAINVAL, _TEST, "torchvision trainval/test, variants"),
    ),
    "pets": DataSet(
        "oxford-iiit-pet/images/ and oxford-iiit-pet/annotations/",
        Torchvision(datasets.OxfordIIITPet, _TRAINVAL, _TEST, "torchvision trainval/test"),
    ),
    # The official split, which is not the paper's (Kaggle's) one.
    "flowers": DataSet(
        "flowers-102/jpg/, flowers-102/imagelabels.mat and flowers-102/setid.mat",
        Torchvision(
            datasets.Flowers102,
            _TRAIN_AND_VAL,
            _TEST,
            "torchvision train+val/test, not Kaggle's split",
        ),
    ),
    "caltech101": DataSet("caltech101/101_ObjectCategories/class/*.jpg", caltech101),
    # torchvision reads it, but can no longer download it.
    "cars": DataSet(
        "stanford_cars/ with cars_train/*.jpg, cars_test/*.jpg, cars_test_annos_withlabels.mat, "
        "devkit/cars_meta.mat and devkit/cars_train_annos.mat",
        Torchvision(datasets.StanfordCars, ({"split": "train"},), _TEST, _TRAIN_TEST),
        downloadable=False,
    ),
    "flowers_kaggle": DataSet(
        "train/1 to train/102 and valid/1 to valid/102", flowers_kaggle, downloadable=False
    ),
    "imagenet20": DataSet(
        "imagenette2/{train,val}/n*/ and imagewoof2/{train,val}/n*/ (or both -320, or both -160)",
        imagenet20,
        downloadable=False,
    ),
    "inat18": DataSet(
        "train2018.json, val2018.json and train_val2018/ with the images",
        inat18,
        downloadable=False,
    ),
    USERS_FOLDER: DataSet(
        "train/class/* and val/class/* (or test/class/*)",
        lambda place: load_folder(place.root),
        downloadable=False,
    ),
}
DATASETS = (EMBEDDED, *_ON_DISK)

# Why a set's official split does not have the number that Table 10 prints.
_KAGGLE = "the paper uses Kaggle's split, which is 'flowers_kaggle'"
EXPLANATIONS = {
    ("pets", "test"): "the official test split has 3,669 images, so the paper's is a misprint",
    ("flowers", "train"): _KAGGLE,
    ("flowers", "test"): _KAGGLE,
}


def load_splits(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    download: bool = False,
    fraction: float = 1.0,
    validation: float = 0.1,
    seed: int = 0,
    scan: bool = False,
) -> Splits:
    """Load a data set of Table 10, the embedded one, or a folder of images.

    Args:
        name: one of `DATASETS`.
        root: the folder that holds the set; none for the embedded one.
        download: fetch the set into `root` where torchvision can.
        fraction: share in (0, 1] of the training images of each class to keep (Table 5), at least
            one; sampled of what is left after carving and of the validation images alike.
        validation: share in [0, 1) of the training images to carve out, about the same of each
            class; a folder with its own validation and test images keeps those instead.
        seed: what carving and sampling depend on. The test set does not depend on it.
        scan: look at the header of every image of a user's folder.

    Raises:
        UserError: the name is unknown, an argument is out of range, or the set is missing, not
            laid out as expected, or has files that are not images; one sentence says what to do.
    """
    source = _read(name, root, download)
    parts = source.parts()
    for part, images in parts.items():
        # What a damaged list of images leaves.
        if not len(images):
            raise UserError(f"'{name}' has no {part} images: unpack or copy its files anew.")
        if not 0 <= min(images.labels) <= max(images.labels) < len(images.classes):
            raise UserError(
                f"'{name}' has {part} images of none of its {len(images.classes)} classes: unpack "
                "or copy its lists of images anew."
            )
    found = fingerprint(parts)
    if scan and name == USERS_FOLDER:
        files = [images for images in parts.values() if isinstance(images, ImageFiles)]
        scan_headers([path for images in files for path in images.paths], found["sha256"])
    train, held_out = carve_and_sample(source, fraction=fraction, validation=validation, seed=seed)
    return Splits(
        name=name,
        classes=source.train.classes,
        train=train,
        validation=held_out,
        test=source.test,
        split=source.split,
        warnings=[*size_warnings(name, source), *source.warnings],
        fingerprint=found,
    )


def _read(name: str, root: str | os.PathLike[str] | None, download: bool) -> Source:
    if name == EMBEDDED:
        if root is not None or download:
            given = "--download" if root is None else f"--data-dir {os.fspath(root)}"
            raise UserError(f"'{EMBEDDED}' ships with the package: leave out {given}.")
        return emoji_domains()
    if name not in _ON_DISK:
        nearest = difflib.get_close_matches(name, DATASETS, n=1) or [USERS_FOLDER]
        raise UserError(
            f"Unknown data set '{name}': expected one of {', '.join(DATASETS)}; "
            f"did you mean '{nearest[0]}'?"
        )
    layout, read, downloadable = _ON_DISK[name]
    hint = "; --download fetches the set" if downloadable and not download else ""
    if root is None:
        raise UserError(
            f"'{name}' needs a folder: give --data-dir FOLDER with {layout} in it{hint}."
        )
    if download and not downloadable:
        raise UserError(
            f"'{name}' cannot be downloaded by torchvision: lay out {layout} in a folder by hand "
            "and give it as --data-dir FOLDER without --download."
        )
    # Path's own method raises an error where there is no such user.
    place = Place(name, Path(os.path.expanduser(root)), layout, download, hint)  # noqa: PTH111
    if not download:
        require_folder(place.root, str(place))
    return read(place)


class Sizes(NamedTuple):
    """Numbers of classes, and of images in either split."""

    classes: int
    train: int
    test: int


def paper_sizes() -> dict[str, Sizes]:
    """Return Table 10: the name of a data set to its number of classes and of images."""
    table = resources.files("core_tuning") / "paper_tables" / "table10_datasets.csv"
    return {
        row["dataset"]: Sizes(*(int(row[field]) for field in Sizes._fields))
        for row in csv.DictReader(table.read_text().splitlines())
    }


def size_warnings(name: str, source: Source) -> list[str]:
    """Return a sentence for each number that differs from Table 10's.

    A set that Table 10 does not have, such as a user's folder, is not checked.
    """
    sizes = paper_sizes().get("flowers" if name == "flowers_kaggle" else name)
    if sizes is None:
        return []
    found = Sizes(len(source.train.classes), len(source.train), len(source.test))
    warnings = []
    for part, expected, count in zip(Sizes._fields, sizes, found, strict=True):
        if count != expected:
            what = "classes" if part == "classes" else f"images in the {part} split"
            reason = EXPLANATIONS.get((name, part))
            warnings.append(
                f"{name} ({source.split}) has {count:,} {what} where Table 10 of the paper prints "
                f"{expected:,}{f': {reason}' if reason else ''}."
            )
    return warnings
