"""What a sweep is made of: a definition has parts, a part stands for runs, a run has stages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from core_tuning.commands import COMMANDS
from core_tuning.config import MOVABLE, PLACES
from core_tuning.methods import METHODS, hyperparameters
from core_tuning.options import declared, given_options, parse, to_argv

# Keys of a run's cell beside the axes.
PART, ROW = "part", "row"
# Of a definition's "command".
KINDS = ("finetune", "dg", "domainbed", "robust")
DOMAINBED = "domainbed train"
EVALUATE = "robust evaluate"
FOLDER = "{folder}"
# What the sweep itself says of each run.
_OWN = PLACES | {"seeds"}
# What the run itself says, and the budgets, which a definition gives as measures.
_NOT_OF_EVALUATE = _OWN | {
    "model", "module", "encoder", "normalisation", "image_size", "dataset", "norm", "l2", "linf",
}  # fmt: skip
# Of DomainBed's own train.py.
_DOMAINBED = (
    "data_dir", "dataset", "algorithm", "task", "hparams", "hparams_seed", "steps",
    "checkpoint_freq", "test_envs", "holdout_fraction", "uda_holdout_fraction", "skip_model_save",
    "save_model_every_checkpoint", "workers",
)  # fmt: skip
_HYPERPARAMETERS = frozenset(option.name for option in hyperparameters())
# What a run may be moved to another machine with; a checkpoint's path names what it starts from.
NOT_IDENTITY = MOVABLE - {"pretrained"}
_DONE = {"finetune": "result.json", EVALUATE: "robustness/report.json"}


class Stage(NamedTuple):
    """A command of core-tuning, such as "robust evaluate", and its options as plain values."""

    command: str
    options: dict[str, Any]

    def argv(self, folder: str, seed: int) -> list[str]:
        """The command line without "core-tuning", as it is launched; nothing reads it back.

        Args:
            folder: of the run.
            seed: of the run, and for domain generalisation of its splits too.
        """
        if self.command == DOMAINBED:
            # DomainBed's own names; it cannot resume.
            own = {"trial_seed": seed, "seed": seed, "output_dir": folder}
            return [*self.command.split(), *_domainbed_flags({**self.options, **own})]
        own = {"model": folder} if self.command == EVALUATE else {"seeds": [seed], "output": folder}
        cls = COMMANDS[self.command].options_class()
        return [*self.command.split(), *to_argv(cls, {**self.options, **own}), "--resume"]

    def check(self) -> None:
        """Check the options as the command will, before any run begins.

        Raises:
            UserError: the command would refuse them. DomainBed's launch makes its own checks.
        """
        if self.command == DOMAINBED:
            return
        cls, prog = COMMANDS[self.command].options_class(), f"core-tuning {self.command}"
        if self.command == EVALUATE:
            # What it completes its options by is the run, which is not there yet.
            given_options(prog, cls, to_argv(cls, {**self.options, "model": FOLDER}))
        else:
            parse(prog, cls, to_argv(cls, {**self.options, "output": FOLDER}))


class Run(NamedTuple):
    """A run of a sweep.

    Attributes:
        id: short hash of stages and seed, whatever the machine and the folders.
        title: such as "Core-tuning, dtd, seed 0".
        cell: what a table groups by: the part, the row and each axis, without the seed.
        seed: of the run.
        stages: one after the other.
        forwards: forward passes of one image in all, an estimate; None if unknown.
    """

    id: str
    title: str
    cell: dict[str, str]
    seed: int
    stages: tuple[Stage, ...]
    forwards: float | None

    @property
    def done(self) -> str:
        """The file inside the run's folder whose presence says that it is finished."""
        return _DONE.get(self.stages[-1].command, "done")

    def argvs(self, folder: str) -> list[list[str]]:
        """The command line of each stage, see `Stage.argv`."""
        return [stage.argv(folder, self.seed) for stage in self.stages]


class Choice(NamedTuple):
    """A value of an axis.

    Attributes:
        name: that tables show.
        options: that it gives the command.
        paper: columns of the paper's table that it fixes; None where the paper has no such number.
    """

    name: str
    options: dict[str, Any]
    paper: dict[str, str] | None


# A choice of each axis, in the order of the axes.
Cell = dict[str, Choice]


class Part(NamedTuple):
    """Runs of one kind: every combination of the choices of its axes.

    Attributes:
        name: "" where the definition has a single part.
        command: one of `KINDS`.
        adversarial: whether "robust" trains adversarially, or plainly and only measures.
        seeds: of the runs.
        options: of every run's training.
        evaluate: options of `robust evaluate`.
        measures: budgets {"norm", "eps"} at which robustness is measured; none: that of training.
        axes: name of an axis (rows are the axis "row") to its choices.
        grid: the axes that are hyper-parameters, which validation chooses among.
        paper: {"table", "value", "where"}, or None.
        small: what the small setting changes; None where there is none.
    """

    name: str
    command: str
    adversarial: bool
    seeds: list[int]
    options: dict[str, Any]
    evaluate: dict[str, Any]
    measures: list[dict[str, str]]
    axes: dict[str, list[Choice]]
    grid: list[str]
    paper: dict[str, Any] | None
    small: dict[str, Any] | None


def cell_names(part: Part, cell: Cell) -> dict[str, str]:
    """What a run's `cell` holds: part, row and axes by name."""
    first = {PART: part.name} if part.name else {}
    return {**first, **{axis: choice.name for axis, choice in cell.items()}}


def training_command(kind: str, *, adversarial: bool = True) -> str:
    """The command that trains a run of a kind: one of "robust" may be trained plainly."""
    robust = "robust train" if adversarial else "finetune"
    return {"robust": robust, "domainbed": DOMAINBED}.get(kind, kind)


@cache
def known_options(command: str) -> tuple[str, ...]:
    """Names of the options that a definition may give a stage of this command."""
    if command == DOMAINBED:
        return _DOMAINBED
    left_out = _NOT_OF_EVALUATE if command == EVALUATE else _OWN
    options = declared(COMMANDS[command].options_class())
    return tuple(option.name for option in options if option.name not in left_out)


def lacks(options: Mapping[str, Any], name: str) -> bool:
    """Whether an option is a hyper-parameter that the method of a run does not have."""
    method = METHODS.get(str(options.get("method", "core_tuning")))
    return method is not None and name in _HYPERPARAMETERS and name not in method.defaults()


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


def _domainbed_flags(options: Mapping[str, Any]) -> list[str]:
    """The form that options have for DomainBed's train.py, which declares none of them to us."""
    flags: list[str] = []
    for name, value in options.items():
        if isinstance(value, bool):
            flags += [f"--{name}"] if value else []
        elif isinstance(value, Mapping):
            flags += [f"--{name}", json.dumps(value)]
        elif isinstance(value, list):
            flags += [f"--{name}", *(canonical(each) for each in value)]
        else:
            flags += [f"--{name}", canonical(value)]
    return flags
