"""The model under evaluation: a run's, a checkpoint's or a user's own, and what is known of it."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from core_tuning.checkpoint_recognition import RUN_CHECKPOINT_KEY, run_facts
from core_tuning.checkpoints import read_checkpoint
from core_tuning.data import default_recipe
from core_tuning.data.transforms import RECIPES
from core_tuning.encoders import (
    NO_NORMALISATION,
    ImageEncoder,
    Normalisation,
    assumed_heads,
    build_encoder,
    classifier_name,
    split_heads,
)
from core_tuning.errors import UserError
from core_tuning.files import field, read_json
from core_tuning.training.exported import build_classifier, load_model

from .user_module import OwnModule, build_module, normalising_layer, own_code

NORMALISATIONS = {"imagenet": Normalisation(), "none": NO_NORMALISATION}
# Where training scripts keep the weights; "" is the file itself.
_SECTIONS = ("", "state_dict", "model", "model_state_dict", "net")
Kinds = Mapping[str, type | tuple[type, ...]]


class Subject(NamedTuple):
    """A model and what an evaluation must know of it.

    Attributes:
        name: short, for titles and the default folder.
        model: images (n, 3, S, S) in [0, 1] to logits (n, K); float32, in evaluation mode.
        dataset: name of the data set to measure it on.
        data_dir: where that lies.
        recipe: of the transforms.
        image_size: S, in pixels.
        classes: the model's class names; None where they are not known.
        config: what the model's run was started with; {} where there is none.
        facts: for the report.
    """

    name: str
    model: nn.Module
    dataset: str
    data_dir: str | None
    recipe: str
    image_size: int
    classes: list[str] | None
    config: dict[str, Any]
    facts: dict[str, Any]


def load_subject(options: argparse.Namespace) -> Subject:
    """Load the model that a command line names.

    Raises:
        UserError: it cannot be loaded, or the command line says too little or too much of it.
    """
    # Building an encoder draws the weights that the file's then replace.
    with torch.random.fork_rng(devices=[]):
        if options.module is not None:
            return _load_module(options)
        path = options.model
        if path.is_dir() or _is_run_model(path):
            return _load_run(options, path)
        return _load_checkpoint(options, path)


def _is_run_model(path: Path) -> bool:
    contents = read_checkpoint(path)
    if not isinstance(contents, Mapping):
        return False
    if RUN_CHECKPOINT_KEY in contents:
        raise UserError(
            f"'{path}' is what a run is resumed from, not its selected model: name the run's "
            "folder or its model.safetensors."
        )
    return "classes" in (run_facts(contents, path) or {})


def _load_run(options: argparse.Namespace, path: Path) -> Subject:
    for option in ("encoder", "normalisation", "transforms", "image_size"):
        if getattr(options, option) is not None:
            reason = " and its model normalises already" if option == "normalisation" else ""
            raise UserError(
                f"--{option.replace('_', '-')} is given for {path}: a run states it{reason}; "
                "leave it out."
            )
    model, known = load_model(path)
    folder = path if path.is_dir() else path.parent
    config = _read_config(folder / "run.json")
    result_path = folder / "result.json"
    result = _read_if_there(result_path, {"selection": str})
    dataset = options.dataset or known["dataset"]
    same = dataset == known["dataset"]
    if same and "targets" in known:
        raise UserError(
            f"{path} was trained on {dataset} without the domains {', '.join(known['targets'])}: "
            "its test split holds images that the model was trained on; name another --dataset."
        )
    data_dir = options.data_dir or (config.get("data_dir") if same else None)
    facts = {
        **{key: value for key, value in known.items() if key != "classes"},
        "selection": result.get("selection", "unknown"),
    }
    return _subject(
        path.resolve().name if path.is_dir() else path.resolve().parent.name,
        "run", path, model,
        (dataset, data_dir, known["transforms"], known["image_size"]),
        facts, classes=known["classes"], config=config if same else {},
    )  # fmt: skip


def _read_config(path: Path) -> dict[str, Any]:
    """Return what a run was started with, checked where an evaluation uses it; {} if unknown."""
    contents = _read_if_there(path, {"options": dict})
    kinds: Kinds = {
        "data_dir": (str, NoneType),
        "fraction": (int, float),
        "validation": (int, float),
        "seed": int,
    }
    run = {
        **contents.get("options", {}),
        **{name: contents[name] for name in ("seed", "data") if name in contents},
    }
    return _checked(run, kinds, path)


def _read_if_there(path: Path, kinds: Kinds) -> dict[str, Any]:
    return _checked(read_json(path), kinds, path) if path.exists() else {}


def _checked(contents: dict[str, Any], kinds: Kinds, path: Path) -> dict[str, Any]:
    for name, kind in kinds.items():
        if name in contents:
            field(contents, name, kind, path)
    return contents


def _load_checkpoint(options: argparse.Namespace, path: Path) -> Subject:
    missing = [
        f"--{name}"
        for name in ("encoder", "dataset", "normalisation")
        if getattr(options, name) is None
    ]
    if missing:
        raise UserError(
            f"'{path}' is no run of this package and does not say what it is: give "
            f"{', '.join(missing)} as well."
        )
    encoder = build_encoder(options.encoder)
    tensors = _classifier_tensors(path, classifier_name(encoder))
    stored = sorted(
        {str(t.dtype).removeprefix("torch.") for t in tensors.values() if t.is_floating_point()}
    )
    model = build_classifier(
        options.encoder,
        tensors,
        NORMALISATIONS[options.normalisation],
        path,
        "name the --encoder that it was trained with",
    )
    facts = {
        "encoder": options.encoder,
        "normalisation": options.normalisation,
        "stored_as": ", ".join(stored),
        "selection": "unknown",
    }
    assumed = assumed_heads(encoder) if split_heads(options.encoder)[1] is None else ""
    if assumed:
        print(f"note: {assumed}.")
        facts["note"] = assumed
    return _subject(path.stem, "checkpoint", path, model, _named_data(options), facts)


def _classifier_tensors(path: Path, head: str) -> dict[str, Tensor]:
    contents = read_checkpoint(path)
    for section in _SECTIONS:
        held = contents.get(section) if section and isinstance(contents, Mapping) else contents
        if not isinstance(held, Mapping):
            continue
        tensors = {
            key.removeprefix("module."): value
            for key, value in held.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
        if f"{head}.weight" in tensors:
            return tensors
    raise UserError(
        f"'{path}' holds no classifier '{head}.weight': expected a fine-tuned model of the "
        "encoder's library, not a self-supervised encoder; fine-tune it first."
    )


def _load_module(options: argparse.Namespace) -> Subject:
    for option in ("dataset", "image_size"):
        if getattr(options, option) is None:
            raise UserError(
                f"--{option.replace('_', '-')} is missing: --module needs --dataset NAME and "
                "--image-size PX, which a Python function does not state."
            )
    if options.encoder is not None:
        raise UserError("--encoder is given with --module, whose function builds the whole model.")
    file, _, function = str(options.module).rpartition(":")
    named = f"{Path(file).name}:{function}"
    model: nn.Module = build_module(Path(file), function, named)
    if options.normalisation not in (None, "none"):
        layer = normalising_layer(model)
        if layer is not None:
            raise UserError(
                f"--normalisation {options.normalisation} is given and the model of {named} "
                f"normalises already ({layer}): leave it out, or images are normalised twice."
            )
        normalise = ImageEncoder(nn.Identity(), NORMALISATIONS[options.normalisation])
        model = nn.Sequential(normalise, OwnModule(model, named))
    else:
        model = OwnModule(model, named)
    facts = {
        "normalisation": options.normalisation or "the model's own",
        # What the function computes is not in its weights alone.
        "code": hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16],
        "selection": "unknown",
    }
    name, data = f"{Path(file).stem}-{function}", _named_data(options)
    # Its tensors may be of a kind that has no numbers to read.
    with own_code(f"Reading the weights of {named}", "expected dense tensors with values"):
        return _subject(name, "module", options.module, model, data, facts)


def _named_data(options: argparse.Namespace) -> tuple[str, Path | None, str, int]:
    recipe = options.transforms or default_recipe(options.dataset)
    return options.dataset, options.data_dir, recipe, options.image_size or RECIPES[recipe][1]


def _subject(
    name: str,
    kind: str,
    source: object,
    model: nn.Module,
    data: tuple[str, Any, str, int],
    facts: dict[str, Any],
    *,
    classes: list[str] | None = None,
    config: dict[str, Any] | None = None,
) -> Subject:
    dataset, data_dir, recipe, image_size = data
    model = model.float().eval().requires_grad_(False)
    facts = {"name": name, "kind": kind, "source": str(source), **facts}
    facts["weights"] = fingerprint(model)
    folder = None if data_dir is None else str(data_dir)
    return Subject(name, model, dataset, folder, recipe, image_size, classes, config or {}, facts)


def fingerprint(model: nn.Module) -> str:
    """Return the first 16 digits of the SHA-256 of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue  # what a module's get_extra_state returns
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
