"""Telling whether a run goes on with the images that it was started with."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .images import LabelledImages
from .names import shown

NAMED_CHANGES = 2


def fingerprint(parts: Mapping[str, LabelledImages]) -> dict[str, Any]:
    """Describe a data set so that a change is noticed and can be named, as plain values.

    Copying the data elsewhere changes nothing, and times of files do not count. The contents of
    files are not read; images in memory are hashed whole.

    Args:
        parts: the images of each split or domain, before anything is carved out or sampled.

    Returns:
        `sha256` over the path below the data set's folder, label and size in bytes of every image
        in order, and `images`, their number by part and class.

    Raises:
        UserError: a file is missing or is no file.
    """
    digest = hashlib.sha256()
    counts = {}
    for name, images in parts.items():
        digest.update(f"{name}\0{len(images)}\0".encode())
        for identity in images.identity():
            digest.update(identity)
        of_class = Counter(images.labels)
        counts[name] = {
            class_name: of_class[label]
            for label, class_name in enumerate(images.classes)
            if of_class[label]
        }
    return {"sha256": digest.hexdigest(), "images": counts}


def describe_change(before: object, now: Mapping[str, Any]) -> str | None:
    """Say in a clause how the images differ from those of a config's fingerprint; None if not."""
    if not isinstance(before, dict) or not isinstance(before.get("images"), dict):
        return "its run.json does not say which they were"
    if before.get("sha256") == now["sha256"]:
        return None
    changes = []
    for part in {**before["images"], **now["images"]}:
        earlier, later = (each["images"].get(part, {}) for each in (before, now))
        for name in {**earlier, **later}:
            count, expected = later.get(name, 0), earlier.get(name, 0)
            if count != expected:
                what = f"class '{shown(name)}' of {shown(part)}"
                images = "image" if count == 1 else "images"
                changes.append(f"{what} has {count} {images}, not {expected}")
    if not changes:
        return "each class has as many images as before, but a name or a size is another"
    more = len(changes) - NAMED_CHANGES
    left_out = [f"and {more} more differ"] if more > 0 else []
    return ", ".join([*changes[:NAMED_CHANGES], *left_out])


def check_same_images(before: object, now: Mapping[str, Any], run: str | os.PathLike[str]) -> None:
    """Check that a run can go on with these images.

    Args:
        before: the fingerprint in the run's config.
        now: that of the images.
        run: the run's folder.

    Raises:
        UserError: they are not those that the run was started with; it names a difference.
    """
    change = describe_change(before, now)
    if change is not None:
        raise UserError(
            f"The run in {shown(run)} was started with other images: {change}; give --resume the "
            "images that it was started with, or start another with --output."
        )
