"""What lies in an image folder, and what of it is skipped."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from ..errors import UserError
from .names import shown

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
        """Note a path that is skipped, of one of the kinds below."""
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


def is_hidden(name: str) -> bool:
    """Say whether a name is of a hidden file or folder, or of macOS's archive debris."""
    return name.startswith((".", "__MACOSX"))


def is_image_name(name: str) -> bool:
    """Say whether torchvision's ImageFolder takes a file of this name for an image."""
    return name.lower().endswith(IMG_EXTENSIONS)


def entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, by name.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(
            f"The folder {shown(folder)} cannot be read ({error.strerror}): give yourself the "
            "right to read it, or remove it."
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """Return a folder's folders by name, linked ones too, without hidden ones."""
    return [
        Path(entry.path)
        for entry in entries(folder)
        if is_folder(entry) and not is_hidden(entry.name)
    ]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one, leads nowhere
        return False


def image_paths(folder: Path, skipped: Skipped) -> list[str]:
    """Return the image files below a folder in the order of torchvision's ImageFolder.

    Folder by folder, that is: those of `a/` come before those of `a/b/`, whatever their names.
    Links to files and folders are followed, as there, but not back to a folder above them. What
    has an image's suffix and is no file is returned as well: it is refused when it is looked at.
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
            elif is_image_name(entry.name):
                found[path].append(entry.path)
            else:
                skipped.add(OTHER, entry.path)
    return [image for path in sorted(found) for image in found[path]]


def _identity(folder: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 (paths are strings here, because there are many)
    return status.st_dev, status.st_ino
