"""Looks at folders of the form root/domain/class/images."""

from __future__ import annotations

from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in DomainBed's order."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def count_images(domain: Path) -> int:
    """Count the files that torchvision's ImageFolder takes for images of a domain."""
    return sum(path.suffix.lower() in IMG_EXTENSIONS for path in domain.rglob("*"))
