"""From a run's options to the argument lists of the commands that make it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from core_tuning.config import COMMANDS as CORE_COMMANDS
from core_tuning.config import MOVABLE
from core_tuning.methods import METHODS, hyperparameters
from core_tuning.options import Options as DeclaredOptions
from core_tuning.options import declared, parse, to_argv

FOLDER = "{folder}"
Options = Mapping[str, Any]

# What the run itself says, and the budgets, which a definition gives as measures.
_NOT_OF_EVALUATE = (
    "model", "module", "encoder", "normalisation", "image_size", "dataset", "output", "resume",
    "overwrite", "norm", "l2", "linf",
)  # fmt: skip
# Of DomainBed's own train.py.
_DOMAINBED = (
    "data_dir", "dataset", "algorithm", "task", "hparams", "hparams_seed", "steps",
    "checkpoint_freq", "test_envs", "holdout_fraction", "uda_holdout_fraction", "skip_model_save",
    "save_model_every_checkpoint", "workers",
)  # fmt: skip
# What the sweep itself says of each run.
_OWN = ("output", "seeds", "resume", "overwrite")
COMMANDS = ("finetune", "dg", "domainbed", "robust")
_HYPERPARAMETERS = frozenset(option.name for option in hyperparameters())
# What a run may be moved to another machine with; a checkpoint's path names what it starts from.
NOT_IDENTITY = MOVABLE - {"pretrained"}


@cache
def known_options(command: str, *, adversarial: bool = True) -> tuple[str, ...]:
    """Names of the options that a definition may give the runs of a command."""
    if command == "domainbed":
        return _DOMAINBED
    options = declared(_options_class(command, adversarial))
    return tuple(option.name for option in options if option.name not in _OWN)


def lacks(options: Options, name: str) -> bool:
    """Whether an option is a hyper-parameter that the method of a run does not have."""
    method = METHODS.get(str(options.get("method", "core_tuning")))
    return method is not None and name in _HYPERPARAMETERS and name not in method.defaults()


def _options_class(command: str, adversarial: bool) -> type[DeclaredOptions]:
    """The options of what trains: a run of "robust" that is not adversarial is plain."""
    if command == "robust":
        command = "robust train" if adversarial else "finetune"
    return CORE_COMMANDS[command].options_class()


@cache
def evaluate_options() -> tuple[str, ...]:
    """Names of the options of `core-tuning robust evaluate` that a definition may give."""
    options = declared(CORE_COMMANDS["robust evaluate"].options_class())
    return tuple(option.name for option in options if option.name not in _NOT_OF_EVALUATE)


def canonical(value: Any) -> Any:
    """A value as the text that the command line has for it, so that 1, 1.0 and "1" are equal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, Mapping):
        return {key: canonical(each) for key, each in sorted(value.items())}
    if isinstance(value, list):
        return [canonical(each) for each in value]
    return str(value)


def to_flags(options: Options, *, separator: str = "-") -> tuple[str, ...]:
    """The form that options have on the command line of a program that declares none of them."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", separator)
        if isinstance(value, bool):
            flags += [f"--{flag}"] if value else []
        elif isinstance(value, Mapping):
            flags += [f"--{flag}", json.dumps(value)]
        elif isinstance(value, list):
            flags += [f"--{flag}", *(canonical(each) for each in value)]
        else:
            flags += [f"--{flag}", canonical(value)]
    return tuple(flags)


def steps_of(
    command: str, options: Options, evaluate: Options, seed: int, *, adversarial: bool
) -> tuple[tuple[str, ...], ...]:
    """The argument lists of core-tuning that make a run, in order.

    Args:
        command: one of `COMMANDS`.
        options: of the training.
        evaluate: of `robust evaluate`.
        seed: of the run, and for domain generalisation of its splits too.
        adversarial: whether a run of "robust" is trained adversarially.
    """
    if command == "domainbed":
        # DomainBed's own names; it cannot resume.
        flags = to_flags(options, separator="_")
        seeds = ("--trial_seed", str(seed), "--seed", str(seed))
        return (("domainbed", "train", *flags, *seeds, "--output_dir", FOLDER),)
    cls = _options_class(command, adversarial)
    words = {"robust": ("robust", "train") if adversarial else ("finetune",)}
    train = (
        *words.get(command, (command,)),
        *to_argv(cls, {**options, "seeds": [seed], "output": FOLDER}),
        "--resume",
    )
    if command != "robust":
        return (train,)
    place = {name: options[name] for name in ("data_dir", "download") if name in options}
    cls = CORE_COMMANDS["robust evaluate"].options_class()
    measure = to_argv(cls, {"model": FOLDER, **place, **evaluate})
    return (train, ("robust", "evaluate", *measure, "--resume"))


def check_options(command: str, options: Options, *, adversarial: bool) -> None:
    """Check the options of a run's training as its command will, before any run begins.

    Raises:
        UserError: the command would refuse them. DomainBed's own checks are made by its launch.
    """
    if command != "domainbed":
        cls = _options_class(command, adversarial)
        parse(f"core-tuning {command}", cls, to_argv(cls, {**options, "output": FOLDER}))


def done_file(command: str) -> str:
    """The file in a run's folder that its command writes last."""
    return {"finetune": "result.json", "robust": "robustness/report.json"}.get(command, "done")
