"""Looking at many files at once before training, and saying which of them are at fault."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image, UnidentifiedImageError
from PIL import __version__ as pillow_version
from tqdm import tqdm

from ..cache import cache_folder
from ..errors import UserError
from .modes import check_mode
from .names import shown

Seen = TypeVar("Seen")

# More than cores, because what takes long is a file system on the network.
THREADS = 16
CHUNK = 64
NAMED_FAULTS = 3
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}


def file_size(path: str | os.PathLike[str]) -> int:
    """Return the size in bytes of a file.

    Raises:
        OSError: it does not exist, or is something else than a file: opening a FIFO, for one,
            waits for ever.
    """
    status = os.stat(path)  # noqa: PTH116 (called for each image, and Path takes as long again)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise OSError(f"it is {_KINDS.get(kind, 'a device')}, not a file")
    return status.st_size


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Open an image file without decoding it.

    Raises:
        Exception: of any kind, if it is no file or no image.
    """
    file_size(path)
    return Image.open(path)


def reason_of(error: Exception) -> str:
    """Return what an error says about a file, on one line and without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return shown(" ".join(text.split()).rstrip(".")) or type(error).__name__


def each_file(
    paths: Sequence[str], look: Callable[[str], Seen], *, advice: str, task: str
) -> list[Seen]:
    """Look at every file, in threads, and return what was seen.

    Args:
        paths: of the files.
        look: raises an exception about a file that is at fault.
        advice: ends the sentence about such files.
        task: what the progress bar, shown if it takes seconds, calls it.

    Raises:
        UserError: files are at fault; it names the first ones and how many more there are.
    """
    faults: list[tuple[str, str]] = []

    def look_at(chunk: Sequence[str]) -> list[Seen]:
        seen = []
        for path in chunk:
            try:
                seen.append(look(path))
            # A damaged file makes its reader raise anything, and each is the file's fault.
            except Exception as error:
                faults.append((path, reason_of(error)))
        return seen

    chunks = [paths[first : first + CHUNK] for first in range(0, len(paths), CHUNK)]
    seen: list[Seen] = []
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(total=len(paths), desc=task, unit="image", delay=2, leave=False) as bar,
    ):
        for chunk, part in zip(chunks, pool.map(look_at, chunks), strict=True):
            seen += part
            bar.update(len(chunk))
    if faults:
        order = sorted(faults)
        named = ", ".join(f"{shown(path)} ({reason})" for path, reason in order[:NAMED_FAULTS])
        more = f" and {len(order) - NAMED_FAULTS:,} more" if len(order) > NAMED_FAULTS else ""
        what = "image" if len(paths) == 1 else "images"
        raise UserError(
            f"{len(order):,} of {len(paths):,} {what} cannot be used: {named}{more}; {advice}."
        )
    return seen


def scan_headers(paths: Sequence[str], sha256: str) -> None:
    """Check that every file is an image of a mode that can be read; nothing is decoded.

    Images that have passed are not looked at again: that is noted in the cache under their
    fingerprint.

    Args:
        paths: of the images.
        sha256: their fingerprint's.

    Raises:
        UserError: some are not; it names the first ones and how many more there are.
    """
    # What PIL reads depends on its version.
    passed = cache_folder() / "scanned" / f"{sha256}-pillow-{pillow_version}"
    if passed.exists():
        return
    # While one thread loads PIL's less common formats, another would not find them.
    Image.init()
    each_file(
        paths,
        _check_header,
        advice="replace or remove them; --no-scan leaves this check out",
        task="looking at images",
    )
    # Without a cache that can be written they are looked at again, and nothing is lost.
    with contextlib.suppress(OSError):
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()


def _check_header(path: str) -> None:
    with open_image(path) as image:
        check_mode(image)
