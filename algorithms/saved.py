"""Models in DomainBed's own file, model.pkl."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core_tuning.checkpoints import read_checkpoint
from core_tuning.errors import UserError
from core_tuning.files import write_atomically
from core_tuning.pretrained import RANDOM

from .algorithm import CLASSES, FineTuning

Shape = tuple[int, int, int]


def save_model(
    path: Path,
    algorithm: FineTuning,
    args: Mapping[str, Any],
    input_shape: Shape,
    num_domains: int,
) -> None:
    """Write an algorithm and how it was made, under the names that DomainBed's train.py uses."""
    contents = {
        "args": dict(args),
        "model_input_shape": input_shape,
        "model_num_classes": algorithm.classifier.out_features,
        "model_num_domains": num_domains,
        "model_hparams": algorithm.hparams,
        "model_dict": algorithm.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(contents, buffer)
    write_atomically(path, buffer.getbuffer())


def load_model(path: Path | str) -> FineTuning:
    """Load what `core-tuning dg` or DomainBed's train.py has saved of one of our algorithms.

    The checkpoint that it was fine-tuned from is not needed.

    Args:
        path: a model.pkl, or the folder that holds it.

    Returns:
        The algorithm in evaluation mode: call it with images (n, 3, h, w) in [0, 1], or its
        `predict` with images that DomainBed has normalised.

    Raises:
        UserError: there is no such file, or it is not one of these.
    """
    path = Path(path)
    path = path / "model.pkl" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a run's folder or its model.pkl.")
    contents = read_checkpoint(path)
    args = contents.get("args") if isinstance(contents, Mapping) else None
    name = args.get("algorithm") if isinstance(args, Mapping) else None
    if name not in CLASSES:
        raise UserError(
            f"{path} holds {'no algorithm' if name is None else name}: expected the model.pkl of "
            f"{', '.join(CLASSES)}."
        )
    algorithm = CLASSES[name](
        contents["model_input_shape"],
        contents["model_num_classes"],
        contents["model_num_domains"],
        {**contents["model_hparams"], "checkpoint": RANDOM},
    )
    algorithm.load_state_dict(contents["model_dict"])
    # What was loaded, not what stood in for it.
    algorithm.hparams = dict(contents["model_hparams"])
    algorithm.eval()
    return algorithm
