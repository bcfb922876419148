"""Looks at folders of the form root/domain/class/images as DomainBed reads them.

It takes every folder for a domain or a class, hidden ones too, and torchvision's ImageFolder
numbers the classes of each domain by themselves.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from core_tuning.data.folder import require_same_classes
from core_tuning.errors import UserError


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in DomainBed's order."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def count_images(domain: Path) -> int:
    """Count the files that torchvision's ImageFolder takes for images of a domain."""
    return sum(1 for folder in subfolders(domain) for _ in _images(folder))


def _images(folder: Path) -> Iterator[str]:
    for _, _, names in os.walk(folder, followlinks=True):
        yield from (name for name in names if name.lower().endswith(IMG_EXTENSIONS))


def check_domains(root: Path, expected: int = 0) -> None:
    """Refuse folders of domains from which DomainBed would read wrong labels, or fail to read.

    Args:
        root: holds the domains.
        expected: number of domains, 0 if it is not known.

    Raises:
        UserError: a hidden folder would be a domain or a class, there are more or fewer domains,
            or they differ in their classes, or a class has no images.
    """
    domains = subfolders(root)
    classes = {domain: subfolders(domain) for domain in domains}
    class_folders = list(chain.from_iterable(classes.values()))
    for kind, folders in (("domain", domains), ("class", class_folders)):
        for folder in folders:
            if folder.name.startswith((".", "__MACOSX")):
                raise UserError(
                    f"{folder} is no {kind}, but DomainBed takes every folder there for one: "
                    "remove it."
                )
    if expected and len(domains) != expected:
        raise UserError(
            f"{root} has {len(domains)} folders "
            f"({', '.join(domain.name for domain in domains) or 'none'}) where the data set has "
            f"{expected} domains, and DomainBed takes each folder for one: leave those alone there."
        )
    names = {domain: tuple(each.name for each in classes[domain]) for domain in domains}
    # Most domains are right.
    [(usual, _)] = Counter(names.values()).most_common(1) or [((), 0)]
    for domain, found in names.items():
        require_same_classes(found, usual, f"The folder {domain}", "most beside it")
    for folder in class_folders:
        if next(_images(folder), None) is None:
            raise UserError(
                f"The class folder {folder} has no images: add some, or remove the folder from "
                "every domain."
            )
