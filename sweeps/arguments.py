"""From a run's options to the argument lists of the commands that make it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from core_tuning.errors import UserError
from core_tuning.options import Parser
from core_tuning.training.options import HARMLESS, add_shared_options

FOLDER = "{folder}"
Options = Mapping[str, Any]

# Names of the options that `sweeps` may not import the parsers of; a test compares them.
_ADVERSARIAL = (
    "norm", "eps", "attack_steps", "step_size", "allow_large_eps", "adv_weight",
    "adversarial_only", "eps_warmup", "attack_precision",
)  # fmt: skip
_EVALUATE = (
    "transforms", "data_dir", "download", "split", "n", "seed", "attacks",
    "attack_space", "square_queries", "masking_checks", "batch_size", "device", "workers",
)  # fmt: skip
_DOMAINBED = (
    "data_dir", "dataset", "algorithm", "task", "hparams", "hparams_seed", "steps",
    "checkpoint_freq", "test_envs", "holdout_fraction", "uda_holdout_fraction", "skip_model_save",
    "save_model_every_checkpoint", "workers",
)  # fmt: skip
_DG = (
    "dataset", "data_dir", "algorithm", "test_envs", "hparams", "hparams_seed", "steps",
    "checkpoint_freq", "holdout_fraction", "skip_model_save", "save_model_every_checkpoint",
    "task", "augmented_validation", "skip_training_splits", "image_size", "device", "precision",
    "workers", "memory", "checkpoint_minutes", "scan",
)  # fmt: skip
# What the sweep itself says of each run.
_OWN = ("output", "seeds", "resume", "overwrite")
COMMANDS = ("finetune", "dg", "domainbed", "robust")
# Options that only have a form that switches them off.
_ONLY_OFF = ("focal", "smooth_classifier", "masking_checks", "scan")
_BOTH_FORMS = ("nesterov", "channels_last")
# What a run may be moved to another machine with.
NOT_IDENTITY = HARMLESS | {"device", "memory"}


@cache
def _shared() -> tuple[str, ...]:
    parser = Parser()
    add_shared_options(parser)
    return tuple(name for name in vars(parser.parse_args([])) if name not in _OWN)


def known_options(command: str, *, adversarial: bool = True) -> tuple[str, ...]:
    """Names of the options that a definition may give the runs of a command."""
    if command == "dg":
        return _DG
    if command == "domainbed":
        return _DOMAINBED
    return (*_ADVERSARIAL, *_shared()) if command == "robust" and adversarial else _shared()


def evaluate_options() -> tuple[str, ...]:
    """Names of the options of `core-tuning robust evaluate` that a definition may give."""
    return _EVALUATE


def check_name(name: str, known: Iterable[str], what: str, *, why: str = "") -> None:
    """Raise a UserError with the nearest of the known names if this is none of them.

    Args:
        name: to check.
        known: names.
        what: begins the sentence, such as "table02.toml has an unknown key".
        why: ends it where no name is near.
    """
    known = list(known)
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of {', '.join(known)}{why}."
    raise UserError(f"{what} '{name}': {hint}")


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
    """The command line's form of options, such as {"lambda_n": 0.4} -> --lambda-n 0.4."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", separator)
        if isinstance(value, bool):
            if value and name not in _ONLY_OFF:
                flags.append(f"--{flag}")
            elif not value and name in (*_ONLY_OFF, *_BOTH_FORMS):
                flags.append(f"--no-{flag}")
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
    text = str(seed)
    if command == "dg":
        folder = ("--output-dir", FOLDER, "--resume")
        return (("dg", *to_flags(options), "--trial-seed", text, *folder),)
    if command == "domainbed":
        # DomainBed's own names; it cannot resume.
        flags = to_flags(options, separator="_")
        seeds = ("--trial_seed", text, "--seed", text)
        return (("domainbed", "train", *flags, *seeds, "--output_dir", FOLDER),)
    words = ("robust", "train") if command == "robust" and adversarial else ("finetune",)
    train = (*words, *to_flags(options), "--seeds", text, "--output", FOLDER, "--resume")
    if command == "finetune":
        return (train,)
    place = {name: options[name] for name in ("data_dir", "download") if name in options}
    flags = to_flags({**place, **evaluate})
    return (train, ("robust", "evaluate", FOLDER, *flags, "--resume"))


def done_file(command: str) -> str:
    """The file in a run's folder that its command writes last."""
    return {"finetune": "result.json", "robust": "robustness/report.json"}.get(command, "done")
