"""Image folders: `root/split/class/*` and `root/domain/class/*`, and what of them is skipped."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import UserError
from .embedded import emoji_domains_folder, entries, is_folder, is_hidden
from .images import ImageFiles
from .names import check_class_names, listed, shown
from .splits import Source

# What the folders of a split data set are called, in any case, by what they are used for.
PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
KNOWN_NAMES = "; ".join(" or ".join(names) for names in PARTS.values())
SUFFIXES = ", ".join(IMG_EXTENSIONS)
DOMAIN_LAYOUT = "domain/class/* in it, as DomainBed lays out PACS, VLCS and office_home"
HIDDEN = "hidden files or folders"
OTHER = "files without a known suffix of an image"
OUTSIDE = "files that lie in no class folder"
LOOP = "links that lead back to a folder above them"


class Skipped:
    """Counts what a reader of folders leaves out, to be said once.

    Args:
        root: of the data set; examples are named below it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._paths: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, path: str) -> None:
        """Note a path that is skipped, of one of the kinds above."""
        self._paths[kind].append(path)

    def sentences(self) -> list[str]:
        """Return a sentence for each kind, with its number and an example."""
        return [
            f"Skipped {kind}: {len(paths):,}{_suffixes(paths) if kind == OTHER else ''}, such as "
            f"{shown(os.path.relpath(min(paths), self.root))}."
            for kind, paths in self._paths.items()
        ]


def _suffixes(paths: Iterable[str]) -> str:
    counts = Counter(Path(path).suffix.lower() or "none" for path in paths)
    return f" ({', '.join(f'{shown(suffix)} {n:,}' for suffix, n in counts.most_common(5))})"


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's folders by name, linked ones too, without hidden ones."""
    return [
        Path(entry.path)
        for entry in entries(folder)
        if is_folder(entry) and not is_hidden(entry.name)
    ]


def image_paths(folder: Path, skipped: Skipped) -> list[str]:
    """Return the image files below a folder in the order of torchvision's ImageFolder.

    Folder by folder, that is: those of `a/` come before those of `a/b/`, whatever their names.
    Links to files and folders are followed, as there, but not back to a folder above them. What
    has an image's suffix and is not a file is returned as well: it is refused when it is looked
    at.
    """
    found: dict[str, list[str]] = {}
    above = {*folder.absolute().parents, *folder.resolve().parents, folder}
    to_do = [(os.fspath(folder), frozenset(_identity(each) for each in above))]
    while to_do:
        path, ancestors = to_do.pop()
        found[path] = []
        for entry in entries(path):
            if is_hidden(entry.name):
                skipped.add(HIDDEN, entry.path)
            elif is_folder(entry):
                own = _identity(entry.path)
                if own in ancestors:
                    skipped.add(LOOP, entry.path)
                else:
                    to_do.append((entry.path, ancestors | {own}))
            elif entry.name.lower().endswith(IMG_EXTENSIONS):
                found[path].append(entry.path)
            else:
                skipped.add(OTHER, entry.path)
    return [image for path in sorted(found) for image in found[path]]


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 (paths are strings here, because there are many)
    return status.st_dev, status.st_ino


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
    skipped = Skipped(folder) if skipped is None else skipped
    found: dict[str, list[str]] = {}
    for entry in entries(folder):
        if is_hidden(entry.name):
            skipped.add(HIDDEN, entry.path)
        elif is_folder(entry):
            found[entry.name] = image_paths(Path(entry.path), skipped)
        else:
            skipped.add(OUTSIDE, entry.path)
    where = f"The folder {shown(folder)}"
    check_class_names(found, where)
    if not any(found.values()):
        raise UserError(
            f"{where} has no images in class folders: expected class/*, files that end in "
            f"{SUFFIXES}."
        )
    for name, paths in found.items():
        if not paths:
            raise UserError(
                f"The class folder {shown(folder / name)} has no images: add files that end in "
                f"{SUFFIXES}, or remove the folder."
            )
    if classes is not None:
        require_same_classes(found, classes, where, "the others beside it")
    elif len(found) == 1:
        raise UserError(f"{where} has one class only ({listed(found)}): expected two or more.")
    names = sorted(found) if classes is None else classes
    return ImageFiles.of_classes(found, names, folder if root is None else root, turn=turn)


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
        UserError: the folder has another layout, or its splits differ in classes.
    """
    parts, others = _find_parts(root)
    if not parts and _holds_domains(root):
        domains = ", ".join(shown(path.name) for path in subfolders(root))
        raise UserError(
            f"The folder {shown(root)} holds domains ({domains}) with class folders and no train "
            "folder: it is for leave-one-domain-out training, and 'folder' expects "
            "train/class/* and val/class/*."
        )
    if "train" not in parts or len(parts) < 2:
        missing = "train" if "train" not in parts else "val"
        raise UserError(
            f"The folder {shown(root)} has no folder '{missing}': expected train/class/* and "
            f"val/class/* (or test/class/*) in it; known names are {KNOWN_NAMES}."
        )
    skipped = Skipped(root)
    images: dict[str, ImageFiles] = {}
    classes = None
    for part, folder in parts.items():
        images[part] = scan_classes(folder, classes, skipped=skipped, root=root, turn=True)
        classes = images[part].classes
    warnings = skipped.sentences()
    if others:
        warnings.insert(
            0,
            f"The folder {shown(root)} also holds {listed(others)}, not used: the names of parts "
            f"are {KNOWN_NAMES}.",
        )
    return Source(
        train=images["train"],
        test=images["test"] if "test" in images else images["validation"],
        split="folder " + "/".join(folder.name for folder in parts.values()),
        validation=images["validation"] if len(images) == 3 else None,
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


def _holds_domains(root: Path) -> bool:
    """Say whether a folder looks like `root/domain/class/*`: images two folders below it."""
    return any(
        entry.name.lower().endswith(IMG_EXTENSIONS)
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
    require_folder(folder, DOMAIN_LAYOUT)
    domains = subfolders(folder)
    check_class_names((path.name for path in domains), f"The folder {shown(folder)}")
    if len(domains) < 2:
        raise UserError(
            f"The folder {shown(folder)} has {len(domains)} domains: expected {DOMAIN_LAYOUT}."
        )
    loaded: dict[str, ImageFiles] = {}
    classes = None
    for path in domains:
        loaded[path.name] = scan_classes(path, classes, skipped=skipped, root=folder, turn=turn)
        classes = loaded[path.name].classes
    return loaded
