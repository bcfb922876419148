"""Reading a fine-tuned model back from a run's model.safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.checkpoints.recognise import facts_normalisation, run_facts
from core_tuning.checkpoints.tensors import load_tensors
from core_tuning.data import build_transforms
from core_tuning.encoders import (
    ImageEncoder,
    Normalisation,
    build_encoder,
    classifier_name,
    feature_dim,
)
from core_tuning.errors import UserError
from core_tuning.files import damaged, field

from .folder import MARKER

MODEL = "model.safetensors"
# What every run states of its model, and what reads it back relies on.
_FACTS = {
    "encoder": str, "classes": list, "mean": list, "std": list, "image_size": int,
    "transforms": str, "dataset": str, "seed": int,
}  # fmt: skip


class Facts(dict[str, Any]):
    """What was exported with a model: encoder, classes, image_size, transforms, ..."""

    @property
    def transform(self) -> Callable[[Image.Image], Tensor]:
        """Turns an RGB image into the model's input (3, h, w) in [0, 1], as evaluations do."""
        return build_transforms(self["transforms"], self["image_size"]).evaluate


class Result(NamedTuple):
    """A finished run.

    Attributes:
        folder: of the run.
        metrics: of the selected model on the test set: "top1", "mean_per_class", "loss", "images".
    """

    folder: Path
    metrics: dict[str, Any]

    @property
    def model(self) -> nn.Sequential:
        """The selected model: images (n, 3, h, w) in [0, 1] to logits (n, K)."""
        return load_model(self.folder)[0]


def load_model(path: Path | str) -> tuple[nn.Sequential, Facts]:
    """Load a fine-tuned model.

    Args:
        path: a run's folder, or its model.safetensors.

    Returns:
        A module from images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode, and the
        facts that were exported with it; `facts.transform(image)` makes an input of a PIL image.

    Raises:
        UserError: there is no such file, no run of this package made it, or it is damaged.
    """
    path = model_file(Path(path), MODEL)
    contents = read_checkpoint(path)
    facts = run_facts(contents, path)
    if facts is None or "classes" not in facts:
        raise UserError(
            f"{path} is not a fine-tuned model of this package: expected one written by "
            "'core-tuning finetune' or 'robust train'; 'core-tuning inspect' says what it is."
        )
    for name, kind in _FACTS.items():
        field(facts, name, kind, path)
    classes = facts["classes"]
    if not classes or not all(isinstance(each, str) for each in classes):
        raise damaged(path, "its classes are not texts")
    normalisation = facts_normalisation(facts, path)
    model = build_classifier(facts["encoder"], contents, normalisation, path, "copy it again")
    rows = model[1].out_features
    if rows != len(classes):
        raise damaged(path, f"it names {len(classes)} classes and tells {rows} apart")
    return model.eval(), Facts(facts)


def model_file(path: Path, name: str) -> Path:
    """Return the file of that name in a run's folder; any other path is the file itself.

    Raises:
        UserError: the run has none, because it is not finished or is of another command.
    """
    # What no file can be called is refused where it is opened.
    with suppress(OSError):
        if path.is_dir():
            if (path / MARKER).is_file() and not (path / name).exists():
                raise UserError(
                    f"The run in {path} has no {name} yet: go on with it by --resume, or name one "
                    "that has."
                )
            return path / name
    return path


def build_classifier(
    encoder_name: str,
    contents: Mapping[str, Any],
    normalisation: Normalisation,
    source: object,
    advice: str,
) -> nn.Sequential:
    """Build an encoder and a linear classifier from tensors with the names of its library.

    Args:
        encoder_name: of `build_encoder`.
        contents: all tensors of the encoder, and the classifier's; its bias may be left out.
        normalisation: of the input.
        source: how messages name the file.
        advice: what to do where it does not fit, as the end of a sentence.

    Returns:
        A module from images (n, 3, h, w) in [0, 1] to logits (n, K).

    Raises:
        UserError: it does not fit, or has a tensor that no trained network has.
    """
    tensors = {name: value for name, value in contents.items() if isinstance(value, Tensor)}
    encoder = build_encoder(encoder_name)
    width = feature_dim(encoder)
    name = classifier_name(encoder)
    weight, bias = (tensors.pop(f"{name}.{part}", None) for part in ("weight", "bias"))
    load_tensors(encoder, tensors, source, f"the encoder {encoder_name}", advice)
    if weight is None or weight.ndim != 2 or weight.shape[1] != width:
        found = "is missing" if weight is None else f"has the shape {tuple(weight.shape)}"
        raise UserError(
            f"The classifier in '{source}' {found}: expected (classes, {width}) for {encoder_name}."
        )
    classifier = nn.Linear(width, len(weight))
    head = {"weight": weight, "bias": torch.zeros(len(weight)) if bias is None else bias}
    load_tensors(classifier, head, source, "its classifier", advice)
    return nn.Sequential(ImageEncoder(encoder, normalisation, name=encoder_name), classifier)
