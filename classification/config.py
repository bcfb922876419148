"""The options of `core-tuning evaluate`, without importing torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from core_tuning.options import Options, option


@dataclass(kw_only=True)
class Evaluate(Options):
    """Evaluate the model of a run, in float32, on its test set or on another.

    Nothing is written unless --output says where.
    """

    run: Path = option(
        MISSING, "a run's folder, or its model.safetensors", metavar="RUN", positional=True
    )
    dataset: str | None = option(
        None, "another data set, with the same classes", says="that of the run"
    )
    data_dir: Path | None = option(None, "where the data set lies", metavar="DIR")
    split: str = option("test", "", choices=("test", "validation", "train"))
    batch_size: int = option(128, "images at once")
    workers: int = option(2, "processes that load images")
    device: str = option("auto", "", choices=("auto", "cpu", "cuda"))
    output: Path | None = option(None, "folder for result and report", metavar="DIR")
