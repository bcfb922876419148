"""Opening the header of every image before training, so that a bad one costs no epochs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from PIL import Image
from PIL import __version__ as pillow_version

from ..cache import cache_folder
from .checking import each_file
from .images import ImageFiles, open_image
from .modes import check_mode


def scan_headers(parts: Iterable[ImageFiles], fingerprint: Mapping[str, Any]) -> None:
    """Check that every file is an image of a mode that can be read; nothing is decoded.

    Images that have passed are not looked at again: that is noted in the cache under their
    fingerprint.

    Args:
        parts: the images.
        fingerprint: theirs.

    Raises:
        UserError: some are not; it names the first ones and how many more there are.
    """
    # What PIL reads depends on its version.
    passed = cache_folder() / "scanned" / f"{fingerprint['sha256']}-pillow-{pillow_version}"
    if passed.exists():
        return
    # While one thread loads PIL's less common formats, another would not find them.
    Image.init()
    each_file(
        [path for images in parts for path in images.paths],
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
