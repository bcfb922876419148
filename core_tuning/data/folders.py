"""Image folders: `root/split/class/*` and `root/domain/class/*`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import UserError
from .embedded import emoji_domains_folder
from .images import ImageFiles
from .splits import Source

SPLIT_FOLDERS = ("train", "val", "test")


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's folders by name, without hidden ones and macOS's archive debris."""
    found = [entry for entry in folder.iterdir() if entry.is_dir()]
    return sorted(entry for entry in found if not entry.name.startswith((".", "__MACOSX")))


def image_paths(folder: Path) -> list[Path]:
    """Return the image files below a folder in the order of torchvision's ImageFolder.

    Folder by folder, that is: those of `a/` come before those of `a/b/`, whatever their names.
    """
    return [
        Path(parent, name)
        for parent, _, names in sorted(os.walk(folder))
        for name in sorted(names)
        if name.lower().endswith(IMG_EXTENSIONS) and not name.startswith(".")
    ]


def require_folder(folder: Path, layout: str) -> Path:
    """Return the folder, or raise a UserError that names it and what was expected in it."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise UserError(f"The folder {folder} {what}: expected {layout}.")
    return folder


def scan_classes(folder: Path, classes: list[str] | None = None) -> ImageFiles:
    """Read `folder/class/*` as labelled images.

    Args:
        folder: holds one folder a class.
        classes: names in the order of the labels; those of the folders, sorted, by default.

    Raises:
        UserError: there are no images, one class only, or a class folder without images; or the
            class folders are not those of `classes`.
    """
    require_folder(folder, "one folder of images a class")
    found = {path.name: image_paths(path) for path in subfolders(folder)}
    if not any(found.values()):
        raise UserError(
            f"The folder {folder} has no images in class folders: expected class/*.jpg (or "
            f"{', '.join(suffix for suffix in IMG_EXTENSIONS if suffix != '.jpg')})."
        )
    for name, paths in found.items():
        if not paths:
            raise UserError(
                f"The class folder {folder / name} has no images: add some or remove the folder."
            )
    if classes is not None:
        require_same_classes(found, classes, f"The folder {folder}", "the others beside it")
    elif len(found) == 1:
        raise UserError(
            f"The folder {folder} has one class only ('{next(iter(found))}'): expected two or more."
        )
    names = sorted(found) if classes is None else classes
    return ImageFiles(
        [path for name in names for path in found[name]],
        [label for label, name in enumerate(names) for _ in found[name]],
        names,
    )


def require_same_classes(
    found: Iterable[str], expected: Iterable[str], where: str, other: str
) -> None:
    """Raise a UserError that names the classes by which `found` differs from `expected`."""
    lacking = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    differences = []
    if lacking:
        differences.append(f"lacks {_listed(lacking)}")
    if surplus:
        differences.append(f"has {_listed(surplus)} besides")
    if differences:
        raise UserError(
            f"{where} and {other} differ in their classes: it {' and '.join(differences)}; "
            "every part of a data set needs the same classes."
        )


def _listed(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    left_out = len(names) - limit
    return f"{shown} and {left_out} more" if left_out > 0 else shown


def load_folder(root: Path) -> Source:
    """Read `root/{train,val}/class/*`; `test` stands for `val`, and with all three val validates.

    Raises:
        UserError: the folder is missing, has another layout, or its splits differ in classes.
    """
    layout = "train/class/* and val/class/* (or test/class/*) in it"
    require_folder(root, layout)
    present = [name for name in SPLIT_FOLDERS if (root / name).is_dir()]
    if not present and is_domain_layout(root):
        domains = ", ".join(path.name for path in subfolders(root))
        raise UserError(
            f"The folder {root} holds domains ({domains}) with class folders and no train folder: "
            "it is for leave-one-domain-out training, and 'folder' expects "
            "train/class/* and val/class/*."
        )
    if "train" not in present or len(present) < 2:
        missing = "train" if "train" not in present else "val"
        raise UserError(f"The folder {root} has no folder '{missing}': expected {layout}.")
    train = scan_classes(root / "train")
    rest = {name: scan_classes(root / name, train.classes) for name in present[1:]}
    test_name = present[-1]
    return Source(
        train=train,
        test=rest[test_name],
        split="folder " + "/".join(present),
        validation=rest["val"] if test_name == "test" and "val" in rest else None,
    )


def is_domain_layout(root: Path) -> bool:
    """Say whether a folder looks like `root/domain/class/*`: images two folders below it."""
    for domain in subfolders(root):
        for folder in subfolders(domain):
            if any(path.suffix.lower() in IMG_EXTENSIONS for path in folder.iterdir()):
                return True
    return False


def load_domains(
    name_or_root: str | os.PathLike[str] = "emoji_domains",
    root: str | os.PathLike[str] | None = None,
) -> dict[str, ImageFiles]:
    """Read `root/domain/class/*`: emoji_domains, PACS, VLCS, office_home or any such folder.

    Args:
        name_or_root: `emoji_domains`, which ships with the package, or a folder of domains.
        root: folder that holds it, as DomainBed's data folder holds PACS, VLCS and office_home.

    Returns:
        The images of each domain, domains by name, all with the same classes.

    Raises:
        UserError: the folder is missing or has no images, or the domains differ in classes.
    """
    if name_or_root == "emoji_domains" and root is None:
        folder = emoji_domains_folder()
    else:
        folder = Path(root or "", name_or_root)
    layout = "domain/class/* in it, as DomainBed lays out PACS, VLCS and office_home"
    require_folder(folder, layout)
    domains = subfolders(folder)
    if len(domains) < 2:
        raise UserError(f"The folder {folder} has {len(domains)} domains: expected {layout}.")
    first = scan_classes(domains[0])
    rest = {path.name: scan_classes(path, first.classes) for path in domains[1:]}
    return {domains[0].name: first, **rest}
