"""The data set that ships with the package, unpacked into a cache on first use."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path

from ..cache import CACHE_VARIABLE, cache_folder
from ..errors import UserError


def emoji_domains_folder() -> Path:
    """Return the folder `emoji_domains/<domain>/<class>/*.webp`, unpacked if it is not yet.

    The cache's folder is named by the zip's SHA-256, so that an upgrade unpacks again. Several
    processes may call this at once: each unpacks beside the target and the first rename wins.

    Raises:
        UserError: the cache cannot be written.
    """
    packed = resources.files(__package__) / "embedded" / "emoji_domains.zip"
    with resources.as_file(packed) as archive:
        return unpack(archive, cache_folder()) / "emoji_domains"


def unpack(archive: Path, cache: Path) -> Path:
    """Unpack a zip into a folder of the cache named by its SHA-256, unless it is there.

    Raises:
        UserError: the cache cannot be written.
    """
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    target = cache / f"{archive.stem}-{digest[:16]}"
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        unpacking = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=cache))
        try:
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(unpacking)
            # mkdtemp's folder is the owner's alone, and a shared cache is read by others.
            unpacking.chmod(0o755)
            _rename_unless_there(unpacking, target)
        finally:
            shutil.rmtree(unpacking, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"The data set cannot be unpacked into {cache} ({error.strerror or error}): "
            f"set {CACHE_VARIABLE} to a folder that can be written."
        ) from error
    return target


def _rename_unless_there(unpacked: Path, target: Path) -> None:
    try:
        unpacked.replace(target)
    except OSError:
        # A folder is not replaced by a full one: another process has been faster.
        if not target.is_dir():
            raise
