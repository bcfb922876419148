"""Reading a fine-tuned model back from a run's model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from core_tuning.checkpoints import read_checkpoint
from core_tuning.encoders import ImageEncoder, Normalisation, build_encoder, classifier_name
from core_tuning.errors import UserError


def load_model(path: Path | str) -> tuple[nn.Sequential, dict[str, Any]]:
    """Load a fine-tuned model.

    Args:
        path: a run's folder, or its model.safetensors.

    Returns:
        A module from images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode, and the
        facts that were exported with it: encoder, classes, image_size, transforms, ...

    Raises:
        UserError: there is no such file, or no run of this package made it.
    """
    path = Path(path)
    path = path / "model.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a run's folder or its model.safetensors.")
    tensors = read_checkpoint(path)
    facts = json.loads(tensors.pop("__metadata__", {}).get("core_tuning", "{}"))
    if "classes" not in facts:
        raise UserError(
            f"{path} is no fine-tuned model of this package: expected one written by "
            "'core-tuning finetune' or 'robust train'; 'core-tuning inspect' says what it is."
        )
    encoder = build_encoder(facts["encoder"])
    name = classifier_name(encoder)
    weight, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias")
    classifier = nn.Linear(weight.shape[1], weight.shape[0])
    classifier.load_state_dict({"weight": weight, "bias": bias})
    encoder.load_state_dict(tensors)
    normalisation = Normalisation(tuple(facts["mean"]), tuple(facts["std"]))
    model = nn.Sequential(ImageEncoder(encoder, normalisation), classifier)
    return model.eval(), facts
