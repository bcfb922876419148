"""Small trees of images in the layouts of the data sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

WriteImage = Callable[..., Path]


def save_image(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path)
    return path


@pytest.fixture
def write_image() -> WriteImage:
    return save_image


@pytest.fixture
def write_classes() -> Callable[..., Path]:
    def write(folder: Path, classes: str = "ant bee", count: int = 2, suffix: str = "jpg") -> Path:
        for number, name in enumerate(classes.split()):
            for index in range(1, count + 1):
                save_image(folder / name / f"image_{index:04d}.{suffix}", (50 * number, index, 0))
        return folder

    return write


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Share one cache among this session's tests and never touch the user's."""
    base = tmp_path_factory.getbasetemp() / "core-tuning-cache"
    monkeypatch.setenv("CORE_TUNING_CACHE", str(base))
