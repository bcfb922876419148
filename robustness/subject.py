"""The model under evaluation: a run's, a checkpoint's or a user's own, and what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_tuning.checkpoints.read import read_checkpoint
from core_tuning.checkpoints.recognise import RUN_CHECKPOINT_KEY, run_facts
from core_tuning.config import RUN_FILES
from core_tuning.data import Splits, default_recipe, load_splits
from core_tuning.data.transforms import RECIPES
from core_tuning.encoders import (
    NO_NORMALISATION,
    Normalisation,
    assumed_heads,
    build_encoder,
    classifier_name,
    split_heads,
)
from core_tuning.errors import UserError
from core_tuning.files import field, read_json
from core_tuning.training.exported import build_classifier, load_model
from core_tuning.training.seeds import same_random_states

from .attack.view import AttackView
from .config import RobustEvaluate
from .own_module import build_module, own_code, training_norm
from .protocols import EOT_PASSES

NORMALISATIONS = {"imagenet": Normalisation(), "none": NO_NORMALISATION}
# Where training scripts keep the weights; "" is the file itself.
_SECTIONS = ("", "state_dict", "model", "model_state_dict", "net")
_DIVIDED_BY: dict[str, type | tuple[type, ...]] = {
    "data_dir": (str, type(None)), "fraction": (int, float), "validation": (int, float),
    "seed": int, "data": dict,
}  # fmt: skip
# As pyautoattack's own check for randomised defences has them.
PASSES, TOLERANCE = 5, 1e-4


@dataclass(frozen=True)
class Subject:
    """A model and what an evaluation must know of it.

    Attributes:
        name: short, for titles.
        model: images (n, 3, S, S) in [0, 1] to logits (n, K); float32, in evaluation mode.
        dataset: name of the data set to measure it on.
        recipe: of the transforms.
        image_size: S, in pixels.
        facts: for the report.
        classes: the model's class names; None where they are not known.
        run: what its run.json says, where it is a run on the same data set.
    """

    name: str
    model: nn.Module
    dataset: str
    recipe: str
    image_size: int
    facts: dict[str, Any]
    classes: list[str] | None = None
    run: dict[str, Any] | None = None

    def splits(self, options: RobustEvaluate) -> Splits:
        """Load the data set, divided as for the model's run.

        Raises:
            UserError: it cannot be loaded, or its classes are not the model's.
        """
        run = {"validation": 0.1, "fraction": 1.0, "seed": options.seed, **(self.run or {})}
        splits = load_splits(
            self.dataset,
            options.data_dir or run.get("data_dir"),
            download=options.download,
            fraction=run["fraction"],
            validation=run["validation"],
            seed=run["seed"],
        )
        if self.classes is not None and splits.classes != self.classes:
            raise UserError(
                f"The classes of {self.dataset} ({', '.join(splits.classes[:3])}, ...) are not the "
                f"model's ({', '.join(self.classes[:3])}, ...): evaluate it on a data set with the "
                "same class names."
            )
        return splits


def load_subject(options: RobustEvaluate) -> Subject:
    """Load the model that a command line names.

    Raises:
        UserError: it cannot be loaded, or the command line says too little or too much of it.
    """
    path = options.model
    # Building an encoder draws the weights that the file's then replace.
    with torch.random.fork_rng(devices=[]):
        if path is None:
            subject = _load_module(options)
        elif path.is_dir() or _is_run_model(path):
            subject = _load_run(options, path)
        else:
            subject = _load_checkpoint(options, path)
    source = str(path or options.module)
    # Of a user's own, tensors may be of a kind that has no numbers to read.
    with own_code(f"Reading the weights of {source}", "expected dense tensors with values"):
        weights = fingerprint(subject.model.float().eval().requires_grad_(False))
    subject.facts.update(name=subject.name, source=source, weights=weights)
    return subject


def _is_run_model(path: Path) -> bool:
    contents = read_checkpoint(path)
    if isinstance(contents, Mapping) and RUN_CHECKPOINT_KEY in contents:
        raise UserError(
            f"'{path}' is what a run is resumed from, not its selected model: name the run's "
            "folder or its model.safetensors."
        )
    return "classes" in (run_facts(contents, path) or {})


def _load_run(options: RobustEvaluate, path: Path) -> Subject:
    for option in ("encoder", "normalisation", "transforms", "image_size"):
        if getattr(options, option) is not None:
            raise UserError(
                f"--{option.replace('_', '-')} is given for {path}: a run states it, and its model "
                "normalises already; leave it out."
            )
    model, known = load_model(path)
    folder = path if path.is_dir() else path.parent
    marker, result = folder / RUN_FILES[0], folder / "result.json"
    facts = {key: value for key, value in known.items() if key != "classes"}
    facts |= {"kind": "run", "selection": "unknown"}
    if result.exists():
        facts["selection"] = field(read_json(result), "selection", str, result)
    run, dataset = None, options.dataset or known["dataset"]
    if dataset == known["dataset"]:
        if "targets" in known:
            raise UserError(
                f"{path} was trained on {dataset} without the domains "
                f"{', '.join(known['targets'])}: its test split holds images that the model was "
                "trained on; name another --dataset."
            )
        run = _read_run(marker) if marker.exists() else {}
    name, recipe, side = folder.resolve().name, known["transforms"], known["image_size"]
    return Subject(name, model, dataset, recipe, side, facts, known["classes"], run)


def _read_run(marker: Path) -> dict[str, Any]:
    """What a run.json says; what the images of the run were divided by is checked."""
    contents = read_json(marker)
    contents |= field(contents, "options", dict, marker)
    for name, kinds in _DIVIDED_BY.items():
        if name in contents:
            field(contents, name, kinds, marker)
    return contents


def _load_checkpoint(options: RobustEvaluate, path: Path) -> Subject:
    encoder_name, normalisation = options.encoder, options.normalisation
    if encoder_name is None or normalisation is None or options.dataset is None:
        raise UserError(
            f"'{path}' is not a run of this package and does not say what it is: give --encoder, "
            "--dataset and --normalisation."
        )
    encoder = build_encoder(encoder_name)
    tensors = _classifier_tensors(path, classifier_name(encoder))
    advice = "name the --encoder that it was trained with"
    model = build_classifier(encoder_name, tensors, NORMALISATIONS[normalisation], path, advice)
    facts = {"kind": "checkpoint", "encoder": encoder_name, "normalisation": normalisation}
    assumed = assumed_heads(encoder) if split_heads(encoder_name)[1] is None else ""
    if assumed:
        print(f"note: {assumed}.")
        facts["note"] = assumed
    return _named(options, path.stem, model, facts)


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


def _load_module(options: RobustEvaluate) -> Subject:
    assert options.module is not None
    path, _, function = options.module.rpartition(":")
    file = Path(path)
    model = build_module(file, function, f"{file.name}:{function}")
    # What the function computes is not in its weights alone.
    code = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    return _named(options, f"{file.stem}-{function}", model, {"kind": "module", "code": code})


def _named(options: RobustEvaluate, name: str, model: nn.Module, facts: dict[str, Any]) -> Subject:
    """A subject whose data the command line names."""
    assert options.dataset is not None
    recipe = options.transforms or default_recipe(options.dataset)
    side = options.image_size or RECIPES[recipe][1]
    return Subject(name, model, options.dataset, recipe, side, {**facts, "selection": "unknown"})


def fingerprint(model: nn.Module) -> str:
    """Return the first 16 digits of the SHA-256 of a model's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, Tensor):  # and not what a module's get_extra_state returns
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


class Randomness(NamedTuple):
    """How far a model's answers to the same images differ from one forward pass to the next.

    Attributes:
        passes: forward passes of the same batch.
        images: of that batch.
        difference: largest L2 distance of an image's logits in two passes, relative to the norm
            of its logits less their mean.
        changed: percent of the images whose class differed.
    """

    passes: int
    images: int
    difference: float
    changed: float

    @property
    def is_randomised(self) -> bool:
        """Whether that is more than the rounding of kernels that add in any order."""
        return self.difference > TOLERANCE

    def sentence(self) -> str:
        """Say in a few sentences what a randomised model's accuracies are worth."""
        return (
            f"The model is randomised: {self.passes} forward passes of the same {self.images} "
            f"images differ, and {self.changed:.0f}% of their classes change. Every accuracy is of "
            "one draw, which its interval leaves out. In place of AutoAttack's standard version "
            f"its 'rand' version runs, whose gradients are means over {EOT_PASSES} passes (EOT); "
            "FGSM, PGD and Square see one pass, without EOT, and overstate robustness."
        )


def inspect_answers(model: nn.Module, images: Tensor, num_classes: int) -> Randomness:
    """Classify the same images several times, and follow the gradient of two.

    The global random states are restored.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K), in evaluation mode.
        images: (n, 3, h, w), float32 in [0, 1], n at least 1, on its device.
        num_classes: K.

    Raises:
        UserError: the model fails, or returns something else than finite logits (n, K), a batch
            norm is in training mode, a batch of one image fails, or the way back through the model.
    """
    named = f"The model on images {tuple(images.shape)}"
    # A model may fail in any way, and whatever it is, it cannot be evaluated.
    with same_random_states(), own_code(named, "check --image-size and the model"):
        with torch.no_grad():
            passes = torch.stack([model(images).float() for _ in range(PASSES)])  # (p, n, K)
            model(images[:1])
        if passes.shape[2] != num_classes:
            raise UserError(
                f"The model has {passes.shape[2]} classes and the data set has {num_classes}: "
                "expected a model of the data set's classes; name its own with --dataset."
            )
        norm = training_norm(model)
        if norm:
            raise UserError(
                f"The model's {norm} is in training mode although eval() was called: expected one "
                "that stays in evaluation mode, because images would otherwise be judged by the "
                "rest of their batch; leave the mode alone in its forward()."
            )
        if not bool(passes.isfinite().all()):
            raise UserError(
                "The model's logits are not finite: expected numbers; check its weights, and that "
                "it takes images in [0, 1]."
            )
        # A backward pass that will fail does so now; a model that cuts the graph passes.
        start = images[:2].clone().requires_grad_()
        logits = AttackView(model)(start)
        torch.autograd.grad(F.cross_entropy(logits, logits.argmax(1)), start)
    first = passes[0]
    scale = (first - first.mean(1, keepdim=True)).norm(dim=1)  # (n,)
    apart = (passes - first).norm(dim=2).amax(0)  # (n,)
    # Logits that are all alike have no scale; there any difference counts.
    relative = torch.where(apart > 0, apart / scale, 0.0)
    classes = passes.argmax(2)
    changed = (classes != classes[0]).any(0).double().mean()
    return Randomness(PASSES, len(images), float(relative.max()), 100 * float(changed))
