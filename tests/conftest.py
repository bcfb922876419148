"""What tests of several folders share: quiet machines, clean global state, small data sets."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported, here and in the processes that tests start: more threads than cores
# make small networks slower, and tests compare results bit for bit.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

WriteFolder = Callable[..., Path]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> None:
    """Share one cache among this session's tests and never touch the user's."""
    base = tmp_path_factory.getbasetemp() / "core-tuning-cache"
    monkeypatch.setenv("CORE_TUNING_CACHE", str(base))


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Forget accelerate's global state, which refuses a second precision in one process."""
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()


@pytest.fixture(scope="session")
def write_folder() -> WriteFolder:
    """Write DIR/{train,val,...}/CLASS/*.png: noise around a colour of each class."""
    import numpy as np
    from PIL import Image

    def write(
        root: Path,
        counts: dict[str, int],
        classes: Sequence[str] = ("ant", "bee"),
        size: int = 16,
    ) -> Path:
        generator = np.random.default_rng(0)
        for split, count in counts.items():
            for label, name in enumerate(classes):
                folder = root / split / name
                folder.mkdir(parents=True)
                for index in range(count):
                    noise = generator.integers(0, 120, (size, size, 3), dtype=np.uint8)
                    noise[..., label % 3] += 100
                    Image.fromarray(noise).save(folder / f"{index:04d}.png")
        return root

    return write


@pytest.fixture
def no_warnings() -> Iterator[None]:
    """Make every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def drawn(monkeypatch) -> list[Any]:
    """The matplotlib figures that are saved, to look into them."""
    from matplotlib.figure import Figure

    saved = []
    savefig = Figure.savefig

    def record(self, *arguments, **options):
        saved.append(self)
        return savefig(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return saved
