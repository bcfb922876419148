"""Every data set by name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from . import manual_sets, torchvision_sets
from .fingerprint import fingerprint
from .folders import load_folder
from .images import ImageFiles
from .paper_sizes import size_warnings
from .scan import scan_headers
from .splits import Source, Splits, carve_and_sample

TorchvisionReader = Callable[[str, Path, str, bool], Source]


class _Downloadable(NamedTuple):
    """A set that torchvision reads and downloads; `layout` is what its root folder holds."""

    read: TorchvisionReader
    layout: str


class _Manual(NamedTuple):
    """A set that is laid out by hand; `layout` is what its root folder holds."""

    read: Callable[[Path, str], Source]
    layout: str


EMBEDDED = "emoji_domains"
USERS_FOLDER = "folder"
_DOWNLOADABLE = {
    "cifar10": _Downloadable(torchvision_sets.cifar, "cifar-10-batches-py/"),
    "cifar100": _Downloadable(torchvision_sets.cifar, "cifar-100-python/"),
    "dtd": _Downloadable(torchvision_sets.dtd, "dtd/dtd/images/ and dtd/dtd/labels/"),
    "aircraft": _Downloadable(torchvision_sets.aircraft, "fgvc-aircraft-2013b/data/"),
    "pets": _Downloadable(
        torchvision_sets.pets, "oxford-iiit-pet/images/ and oxford-iiit-pet/annotations/"
    ),
    "flowers": _Downloadable(
        torchvision_sets.flowers,
        "flowers-102/jpg/, flowers-102/imagelabels.mat and flowers-102/setid.mat",
    ),
    "caltech101": _Downloadable(
        torchvision_sets.caltech101, "caltech101/101_ObjectCategories/class/*.jpg"
    ),
}
_MANUAL = {
    "cars": _Manual(
        torchvision_sets.cars,
        "stanford_cars/ with cars_train/*.jpg, cars_test/*.jpg, cars_test_annos_withlabels.mat, "
        "devkit/cars_meta.mat and devkit/cars_train_annos.mat",
    ),
    "flowers_kaggle": _Manual(
        manual_sets.flowers_kaggle, "train/1 to train/102 and valid/1 to valid/102"
    ),
    "imagenet20": _Manual(
        manual_sets.imagenet20,
        "imagenette2/{train,val}/n*/ and imagewoof2/{train,val}/n*/ (or both -320, or both -160)",
    ),
    "inat18": _Manual(
        manual_sets.inat18, "train2018.json, val2018.json and train_val2018/ with the images"
    ),
    USERS_FOLDER: _Manual(
        lambda root, _: load_folder(root), "train/class/* and val/class/* (or test/class/*)"
    ),
}
DATASETS = (EMBEDDED, *_DOWNLOADABLE, *_MANUAL)


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
    _check_labels(name, source)
    found = fingerprint(source.parts())
    if scan and name == USERS_FOLDER:
        scan_headers(
            [part for part in source.parts().values() if isinstance(part, ImageFiles)], found
        )
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


def _check_labels(name: str, source: Source) -> None:
    """Refuse what a damaged list of images leaves: a part without images, or labels of no class."""
    for part, images in source.parts().items():
        if not len(images):
            raise UserError(f"'{name}' has no {part} images: unpack or copy its files anew.")
        if not 0 <= min(images.labels) <= max(images.labels) < len(images.classes):
            raise UserError(
                f"'{name}' has {part} images of none of its {len(images.classes)} classes: unpack "
                "or copy its lists of images anew."
            )


def _read(name: str, root: str | os.PathLike[str] | None, download: bool) -> Source:
    if name == EMBEDDED:
        if root is not None or download:
            given = "--download" if root is None else f"--data-dir {os.fspath(root)}"
            raise UserError(f"'{EMBEDDED}' ships with the package: leave out {given}.")
        return manual_sets.emoji_domains()
    if name in _DOWNLOADABLE:
        downloadable = _DOWNLOADABLE[name]
        folder = _required_root(name, root, f"{downloadable.layout} in it, or --download as well")
        return downloadable.read(name, folder, downloadable.layout, download)
    if name in _MANUAL:
        manual = _MANUAL[name]
        if download:
            raise UserError(
                f"'{name}' cannot be downloaded by torchvision: lay out {manual.layout} in a "
                "folder by hand and give it as --data-dir FOLDER without --download."
            )
        return manual.read(_required_root(name, root, f"{manual.layout} in it"), manual.layout)
    nearest = difflib.get_close_matches(name, DATASETS, n=1) or ["folder"]
    raise UserError(
        f"Unknown data set '{name}': expected one of {', '.join(DATASETS)}; "
        f"did you mean '{nearest[0]}'?"
    )


def _required_root(name: str, root: str | os.PathLike[str] | None, layout: str) -> Path:
    if root is None:
        raise UserError(f"'{name}' needs a folder: give --data-dir FOLDER with {layout}.")
    # Path's own method raises an error where there is no such user.
    return Path(os.path.expanduser(root))  # noqa: PTH111
