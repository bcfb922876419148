"""Hyper-parameters of our algorithms in DomainBed: defaults, random ranges, and checks.

Values are plain Python values, as DomainBed writes them into JSON and model.pkl. What DomainBed
has too bears the name that it has there.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from core_tuning.checkpoints.sources import EMBEDDED, RANDOM, default_encoder
from core_tuning.checks import RANGES, check_range
from core_tuning.encoders import SMALL_ENCODER
from core_tuning.errors import UserError
from core_tuning.methods import METHODS, Method
from core_tuning.options import declared, json_object

from .names import ALGORITHMS as ALGORITHMS
from .names import CHECKPOINT_VARIABLE, DEBUG, DOMAINBED_STEPS, EMOJI, seed_hash
from .script_options import run_steps

Values = dict[str, Any]
# What DomainBed chooses its own networks by; here `encoder` and `checkpoint` do.
DOMAINBED_NETWORKS = (
    "resnet18", "resnet50_augmix", "dinov2", "vit", "vit_attn_tune", "vit_dropout",
    "nonlinear_classifier",
)  # fmt: skip


class _Range(NamedTuple):
    """A hyper-parameter's default, and how a random search draws it."""

    default: Any
    draw: Callable[[np.random.RandomState], Any]


def _fixed(value: Any) -> _Range:
    return _Range(value, lambda _: value)


def _choice(default: float, values: Sequence[float]) -> _Range:
    return _Range(default, lambda state: float(state.choice(values)))


def _power(default: float, base: int, low: float, high: float) -> _Range:
    return _Range(default, lambda state: float(base ** state.uniform(low, high)))


def default_hparams(algorithm: str, dataset: str, *, steps: int = DOMAINBED_STEPS) -> Values:
    """Defaults of one of `ALGORITHMS` on a data set.

    The checkpoint is "embedded" on EmojiDomains and "random" on DomainBed's Debug sets; elsewhere
    it is that of the environment variable CORE_TUNING_CHECKPOINT, or "".

    Args:
        algorithm: one of `ALGORITHMS`.
        dataset: DomainBed's name of the data set, or any other.
        steps: of the run, over which the learning rate decays.
    """
    return {name: row.default for name, row in _ranges(algorithm, dataset, steps).items()}


def random_hparams(
    algorithm: str, dataset: str, seed: int, *, steps: int = DOMAINBED_STEPS
) -> Values:
    """Draw hyper-parameters as DomainBed does: each from its range and a stream of its own."""
    return {
        name: row.draw(np.random.RandomState(seed_hash(seed, name)))
        for name, row in _ranges(algorithm, dataset, steps).items()
    }


def own_hparams(algorithm: str, given: Mapping[str, Any]) -> Values:
    """Leave aside the hyper-parameters that only the other algorithms have."""
    return {name: given[name] for name in default_hparams(algorithm, "") if name in given}


def complete_hparams(algorithm: str, given: Mapping[str, Any]) -> Values:
    """Add defaults for what is missing, the encoder being the one that fits the checkpoint.

    `total_steps` is missing where an algorithm is built without DomainBed's registry of
    hyper-parameters, as in a copy of it that has another one.
    """
    steps = given["total_steps"] if "total_steps" in given else run_steps()
    values = {**default_hparams(algorithm, "", steps=steps), **own_hparams(algorithm, given)}
    if "encoder" not in given:
        values["encoder"] = default_encoder(values["checkpoint"])
    return values


def _ranges(algorithm: str, dataset: str, steps: int) -> dict[str, _Range]:
    small = dataset == EMOJI or dataset == "Debug28"
    ranges = {
        "data_augmentation": _fixed(True),
        "class_balanced": _fixed(False),
        "checkpoint": _fixed(_default_checkpoint(dataset)),
        "encoder": _fixed(SMALL_ENCODER if small else "resnet50"),
        "freeze_bn": _fixed(True),
        "resnet_dropout": _choice(0.0, (0.0, 0.1, 0.5)),
        "lr": _power(1e-3, 10, -4.5, -2.5) if small else _power(5e-5, 10, -5, -3.5),
        "lr_decay": _fixed(0.01),
        "total_steps": _fixed(steps),
        "weight_decay": _power(0.0, 10, -6, -2),
        "batch_size": _Range(32, lambda state: int(2 ** state.uniform(3, 5.5))),
    }
    for each in declared(method_of(algorithm).hyperparameters):
        search = each.declaration.search
        ranges[each.name] = _choice(each.default, search) if search else _fixed(each.default)
    return ranges


def parse_hparams(text: str | None) -> Values:
    """Read the JSON of --hparams; none is {}."""
    return {} if text is None else json_object(text)


def method_of(algorithm: str) -> Method:
    """The method that DomainBed knows by this name."""
    [method] = [each for each in METHODS.values() if each.domainbed == algorithm]
    return method


def _default_checkpoint(dataset: str) -> str:
    if dataset in DEBUG:
        return RANDOM
    return EMBEDDED if dataset == EMOJI else os.environ.get(CHECKPOINT_VARIABLE, "")


def check_hparams(algorithm: str, given: Mapping[str, Any]) -> None:
    """Check the names, types and ranges of hyper-parameters.

    One JSON serves a sweep of all algorithms: each leaves aside what only the others have.

    Raises:
        UserError: a name is not of any of them (the nearest is given), or a value has another
            type or is out of range.
    """
    defaults: Values = {}
    for each in ALGORITHMS:
        defaults |= default_hparams(each, EMOJI)
    for name, value in given.items():
        if name not in defaults:
            raise UserError(_unknown(algorithm, name, list(defaults)))
        _check_type(name, value, defaults[name])
        if name in RANGES:
            check_range(name, value, f"The hyper-parameter {name}")


def require_checkpoint(algorithm: str, checkpoint: str) -> None:
    """Raise a UserError where an algorithm has no checkpoint to start from."""
    if not checkpoint:
        raise UserError(
            f"{algorithm} has no checkpoint to start from: name a self-supervised one by the "
            f"""hyper-parameter, --hparams '{{"checkpoint": "moco_v2_800ep_pretrain.pth.tar"}}', """
            f"or by the environment variable {CHECKPOINT_VARIABLE}."
        )


def _unknown(algorithm: str, name: str, known: list[str]) -> str:
    if name in DOMAINBED_NETWORKS:
        return (
            f"The hyper-parameter '{name}' chooses a network of DomainBed's own, which "
            f"{algorithm} does not use: name one with 'encoder' and its weights with 'checkpoint'."
        )
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"it has {', '.join(known)}."
    return f"{algorithm} has no hyper-parameter '{name}': {hint}"


def _check_type(name: str, value: Any, default: Any) -> None:
    expected: tuple[type, ...] = (type(default),)
    if isinstance(default, float):
        expected = (float, int)
    if not isinstance(value, expected) or isinstance(value, bool) != isinstance(default, bool):
        kind = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
        raise UserError(
            f"The hyper-parameter {name} is {value!r}: expected {kind[type(default)]}, such as "
            f"{default!r}."
        )
