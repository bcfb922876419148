"""Image folders: `root/split/class/*` and `root/domain/class/*`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import UserError
from .embedded import emoji_domains_folder
from .images import ImageFiles
from .listing import (
    HIDDEN,
    OUTSIDE,
    Skipped,
    entries,
    image_paths,
    is_folder,
    is_hidden,
    is_image_name,
    subfolders,
)
from .names import check_class_names, listed, shown
from .splits import Source

# What the folders of a split data set are called, in any case, by what they are used for.
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


def require_folder(folder: Path, layout: str) -> Path:
    """Return the folder, or raise a UserError that names it and what was expected in it."""
    # Path's own methods raise errors about names that are too long.
    if not os.path.isdir(folder):  # noqa: PTH112
        what = "is a file" if os.path.exists(folder) else "does not exist"  # noqa: PTH110
        raise UserError(f"The folder {shown(folder)} {what}: expected {layout}.")
    return folder


def scan_classes(
    folder: Path,
    classes: list[str] | None = None,
    *,
    skipped: Skipped | None = None,
    root: Path | None = None,
    turn: bool = False,
) -> ImageFiles:
    """Read `folder/class/*` as labelled images.

    Args:
        folder: holds one folder a class.
        classes: names in the order of the labels; those of the folders, sorted, by default.
        skipped: receives what is left out.
        root: the data set's folder, if `folder` is a part of it.
        turn: turn images as their EXIF orientation says.

    Raises:
        UserError: there are no images, one class only, a class folder without images, or one
            whose name cannot be written into a table; or the class folders are not those of
            `classes`.
    """
    require_folder(folder, "one folder of images a class")
    root = folder if root is None else root
    skipped = Skipped(root) if skipped is None else skipped
    found: dict[str, list[str]] = {}
    for entry in entries(folder):
        if is_hidden(entry.name):
            skipped.add(HIDDEN, entry.path)
        elif is_folder(entry):
            found[entry.name] = image_paths(Path(entry.path), skipped)
        else:
            skipped.add(OUTSIDE, entry.path)
    check_class_names(found, f"The folder {shown(folder)}")
    if not any(found.values()):
        raise UserError(
            f"The folder {shown(folder)} has no images in class folders: expected class/*, files "
            f"that end in {', '.join(IMG_EXTENSIONS)}."
        )
    for name, paths in found.items():
        if not paths:
            raise UserError(
                f"The class folder {shown(folder / name)} has no images: add files that end in "
                f"{', '.join(IMG_EXTENSIONS)}, or remove the folder."
            )
    if classes is not None:
        require_same_classes(found, classes, f"The folder {shown(folder)}", "the others beside it")
    elif len(found) == 1:
        raise UserError(
            f"The folder {shown(folder)} has one class only ('{next(iter(found))}'): expected two "
            "or more."
        )
    names = sorted(found) if classes is None else classes
    return ImageFiles(
        [path for name in names for path in found[name]],
        [label for label, name in enumerate(names) for _ in found[name]],
        names,
        root=root,
        turn=turn,
    )


def require_same_classes(
    found: Iterable[str], expected: Iterable[str], where: str, other: str
) -> None:
    """Raise a UserError that names the classes by which `found` differs from `expected`."""
    lacking = sorted(set(expected) - set(found))
    surplus = sorted(set(found) - set(expected))
    differences = []
    if lacking:
        differences.append(f"lacks {listed(lacking)}")
    if surplus:
        differences.append(f"has {listed(surplus)} besides")
    if differences:
        raise UserError(
            f"{where} and {other} differ in their classes: it {' and '.join(differences)}; "
            "every part of a data set needs the same classes."
        )


def load_folder(root: Path) -> Source:
    """Read `root/{train,val}/class/*`; `test` stands for `val`, and with all three val validates.

    The folders may have any name of `PARTS`. Images are turned as their EXIF orientation says.

    Raises:
        UserError: the folder is missing, has another layout, or its splits differ in classes.
    """
    layout = "train/class/* and val/class/* (or test/class/*) in it"
    require_folder(root, layout)
    parts, others = _find_parts(root)
    if not parts and is_domain_layout(root):
        domains = ", ".join(shown(path.name) for path in subfolders(root))
        raise UserError(
            f"The folder {shown(root)} holds domains ({domains}) with class folders and no train "
            "folder: it is for leave-one-domain-out training, and 'folder' expects "
            "train/class/* and val/class/*."
        )
    if "train" not in parts or len(parts) < 2:
        missing = "train" if "train" not in parts else "val"
        raise UserError(
            f"The folder {shown(root)} has no folder '{missing}': expected {layout}; known names "
            f"are {_known_names()}."
        )
    skipped = Skipped(root)
    train = scan_classes(parts["train"], skipped=skipped, root=root, turn=True)
    rest = {
        part: scan_classes(folder, train.classes, skipped=skipped, root=root, turn=True)
        for part, folder in parts.items()
        if part != "train"
    }
    warnings = skipped.sentences()
    if others:
        warnings.insert(
            0,
            f"The folder {shown(root)} also holds {listed(others)}, not used: the names of parts "
            f"are {_known_names()}.",
        )
    return Source(
        train=train,
        test=rest["test"] if "test" in rest else rest["validation"],
        split="folder " + "/".join(folder.name for folder in parts.values()),
        validation=rest["validation"] if len(rest) == 2 else None,
        warnings=tuple(warnings),
    )


def _find_parts(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the folder of each part that is there, and the names of other folders."""
    part_of = {name: part for part, names in PARTS.items() for name in names}
    found: dict[str, Path] = {}
    others = []
    for folder in subfolders(root):
        part = part_of.get(folder.name.lower())
        if part is None:
            others.append(folder.name)
        elif part in found:
            raise UserError(
                f"The folder {shown(root)} holds both '{found[part].name}' and '{folder.name}', "
                f"two names of the {part} images: join, rename or remove one of them."
            )
        else:
            found[part] = folder
    return {part: found[part] for part in PARTS if part in found}, others


def _known_names() -> str:
    return "; ".join(" or ".join(names) for names in PARTS.values())


def is_domain_layout(root: Path) -> bool:
    """Say whether a folder looks like `root/domain/class/*`: images two folders below it."""
    return any(
        is_image_name(entry.name)
        for domain in subfolders(root)
        for folder in subfolders(domain)
        for entry in entries(folder)
    )


def load_domains(
    name_or_root: str | os.PathLike[str] = "emoji_domains",
    root: str | os.PathLike[str] | None = None,
    *,
    skipped: Skipped | None = None,
    turn: bool = False,
) -> dict[str, ImageFiles]:
    """Read `root/domain/class/*`: emoji_domains, PACS, VLCS, office_home or any such folder.

    Args:
        name_or_root: `emoji_domains`, which ships with the package, or a folder of domains.
        root: folder that holds it, as DomainBed's data folder holds PACS, VLCS and office_home.
        skipped: receives what is left out.
        turn: turn images as their EXIF orientation says; DomainBed does not.

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
    check_class_names((path.name for path in domains), f"The folder {shown(folder)}")
    if len(domains) < 2:
        raise UserError(
            f"The folder {shown(folder)} has {len(domains)} domains: expected {layout}."
        )
    loaded: dict[str, ImageFiles] = {}
    classes = None
    for path in domains:
        loaded[path.name] = scan_classes(path, classes, skipped=skipped, root=folder, turn=turn)
        classes = loaded[path.name].classes
    return loaded
