"""`core-tuning finetune`: fine-tune a checkpoint on a data set, with one or several seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .options import parse

FIGURES = {"top1": "top-1", "mean_per_class": "mean per class"}


def main(argv: list[str]) -> int:
    """Run the command; torch is imported after the options are checked."""
    options = parse(argv)
    from core_tuning.training.run import PLAIN, run_seeds

    run_seeds(options, PLAIN, _describe, FIGURES)
    return 0


def _describe(result: dict[str, Any], folder: Path) -> str:
    test = result["test"]
    return (
        f"test of {result['dataset']} ({test['images']} images, {result['split']}): "
        f"top-1 {test['top1']:.2f}%, mean per class {test['mean_per_class']:.2f}% "
        f"(model of epoch {result['selected_epoch']}, {result['selection']}); see {folder}"
    )
