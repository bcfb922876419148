"""The data set that ships with the package, unpacked into a cache on first use."""

from __future__ import annotations

import hashlib
import os
import secrets
import zipfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from ..cache import CACHE_VARIABLE, cache_folder
from ..errors import UserError
from .names import shown


def emoji_domains_folder() -> Path:
    """Return the folder `emoji_domains/<domain>/<class>/*.webp`, unpacked if it is not whole.

    The cache's folder is named by the zip's SHA-256, so that an upgrade unpacks again.

    Raises:
        UserError: the cache cannot be written, or holds files of somebody else's in there.
    """
    packed = resources.files(__package__) / "embedded" / "emoji_domains.zip"
    with resources.as_file(packed) as archive:
        return unpack(archive, cache_folder()) / "emoji_domains"


def unpack(archive: Path, cache: Path) -> Path:
    """Unpack what a folder of the cache, named by a zip's SHA-256, lacks of the zip's files.

    Names and sizes are compared at each call, because caches lose files to cleaners and to kills.
    Several processes may do this at once: each file is either whole or not there, and has the same
    contents whoever writes it. Where nothing is missing nothing is written.

    Raises:
        UserError: files are missing and the cache cannot be written, or others are there.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    target = cache / f"{archive.stem}-{digest[:16]}"
    with zipfile.ZipFile(archive) as packed:
        sizes = {member.filename: member.file_size for member in packed.infolist()}
        present = dict(_sizes(target)) if target.is_dir() else {}
        foreign = sorted(present.keys() - sizes.keys())
        if foreign:
            raise UserError(
                f"The folder {shown(target)} holds a file that does not belong to the data set "
                f"({shown(foreign[0])}): delete the folder, which is made again when it is needed."
            )
        try:
            for name, size in sizes.items():
                if present.get(name) != size and not name.endswith("/"):
                    _write(target / name, packed.read(name))
        except OSError as error:
            raise UserError(
                f"The data set cannot be unpacked into {shown(cache)} "
                f"({error.strerror or error}): set {CACHE_VARIABLE} to a folder that can be "
                "written."
            ) from error
    return target


def is_hidden(name: str) -> bool:
    """Say whether a name is of a hidden file or folder, or of macOS's archive debris."""
    return name.startswith((".", "__MACOSX"))


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


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Say whether an entry is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for one, leads nowhere
        return False


def _sizes(root: Path) -> Iterator[tuple[str, int]]:
    """Yield the name below a folder and the size in bytes of each file that is not hidden."""
    to_do = [os.fspath(root)]
    while to_do:
        for entry in entries(to_do.pop()):
            if is_folder(entry):
                to_do.append(entry.path)
            elif not is_hidden(entry.name):
                yield entry.path[len(os.fspath(root)) + 1 :], entry.stat().st_size


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hidden name of its own: neither another process nor a reader of the folder takes it.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        temporary.write_bytes(contents)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
