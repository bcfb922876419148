"""Models in DomainBed's own file, model.pkl."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.checkpoints.sources import RANDOM
from core_tuning.checkpoints.tensors import load_tensors
from core_tuning.errors import UserError, reason, shown
from core_tuning.files import field, write_atomically
from core_tuning.training.exported import model_file
from core_tuning.training.learner import Learner

from .algorithm import CLASSES, FineTuning

Shape = tuple[int, int, int]
MODEL = "model.pkl"
# What train.py writes, and what it is made of.
_CONTENTS: dict[str, type | tuple[type, ...]] = {
    "model_input_shape": (tuple, list),
    "model_num_classes": int,
    "model_num_domains": int,
    "model_hparams": dict,
    "model_dict": dict,
}


def save_model(
    path: Path,
    learner: Learner,
    steps: int,
    args: Mapping[str, Any],
    hparams: Mapping[str, Any],
    input_shape: Shape,
    num_domains: int,
) -> None:
    """Write a learner after so many steps, under the names that DomainBed's train.py uses.

    Args:
        path: of the file.
        learner: to write.
        steps: that it has been trained for.
        args: of train.py.
        hparams: all hyper-parameters.
        input_shape: (3, h, w).
        num_domains: number of source domains.
    """
    tensors = {
        f"featurizer.{name}" if name.startswith("image_encoder.") else name: value
        for name, value in learner.state_dict().items()
    }
    contents = {
        "args": dict(args),
        "model_input_shape": input_shape,
        "model_num_classes": learner.classifier.out_features,
        "model_num_domains": num_domains,
        "model_hparams": dict(hparams),
        "model_dict": {**tensors, "steps_taken": torch.tensor(steps)},
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
        UserError: there is no such file, it is not one of these, or it is damaged.
    """
    path = model_file(Path(path), MODEL)
    contents = read_checkpoint(path)
    args = contents.get("args") if isinstance(contents, Mapping) else None
    name = args.get("algorithm") if isinstance(args, Mapping) else None
    if not isinstance(name, str) or name not in CLASSES:
        raise UserError(
            f"{path} holds {'no algorithm' if name is None else shown(name)}: expected the "
            f"{MODEL} of {', '.join(CLASSES)}."
        )
    for key, kind in _CONTENTS.items():
        field(contents, key, kind, path)
    shape, classes = contents["model_input_shape"], contents["model_num_classes"]
    hparams = {str(key): value for key, value in contents["model_hparams"].items()}
    try:
        algorithm = CLASSES[name](
            shape, classes, contents["model_num_domains"], {**hparams, "checkpoint": RANDOM}
        )
    # What torch raises where a size is none, or is more than there is memory for.
    except (RuntimeError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise UserError(
            f"{path} is damaged (no {name} for {shown(classes)} classes and images of the shape "
            f"{shown(shape)}: {reason(error)}): expected what 'core-tuning dg' or DomainBed's "
            "train.py writes; copy it again."
        ) from error
    load_tensors(algorithm, contents["model_dict"], path, f"its own {name}", "copy it again")
    # What was loaded, not what stood in for it.
    algorithm.hparams = hparams
    algorithm.eval()
    return algorithm
