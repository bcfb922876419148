"""What a call of `finetune` returns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from .exported import Facts, load_model


class Result(NamedTuple):
    """A finished run.

    Attributes:
        folder: of the run.
        metrics: of the selected model on the test set: "top1", "mean_per_class", "loss", "images".
    """

    folder: Path
    metrics: dict[str, Any]

    def load(self) -> tuple[nn.Sequential, Facts]:
        """Load the selected model and its facts, as `load_model` does."""
        return load_model(self.folder)

    @property
    def model(self) -> nn.Sequential:
        """The selected model: images (n, 3, h, w) in [0, 1] to logits (n, K)."""
        return self.load()[0]
