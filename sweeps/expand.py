"""Expands a definition into runs: a part's small setting, its cells, the run of a cell and seed."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.options import check_name

from .checking import check_seeds, check_value
from .cost import forwards
from .paper import paper_cells
from .plan import (
    EVALUATE,
    NOT_IDENTITY,
    PART,
    Cell,
    Choice,
    Part,
    Run,
    Stage,
    canonical,
    cell_names,
    known_options,
    lacks,
    training_command,
)
from .reading import read_definition

# Options that take several values, which --set separates by commas.
_LISTS = ("attacks", "test_envs", "eps_warmup")
# More than anyone has made; a product of axes grows fast.
MOST_RUNS = 100_000


class Sweep(NamedTuple):
    """The runs of a definition.

    Attributes:
        name: of the definition.
        title: a line about it.
        paper: what the paper prints for each cell, see `paper_cells`.
        runs: in the order in which they are worth having: seed by seed.
        definition: text of the file.
    """

    name: str
    title: str
    paper: list[dict[str, Any]]
    runs: tuple[Run, ...]
    definition: str


def load_sweep(
    name: str,
    *,
    seeds: list[int] | None = None,
    small: bool = False,
    settings: Mapping[str, str] | None = None,
    only: Mapping[str, list[str]] | None = None,
) -> Sweep:
    """Expand a definition into runs.

    Args:
        name: one of `sweep_names`, or the path of a user's .toml file.
        seeds: in place of the definition's.
        small: take the definition's small setting.
        settings: options of the runs by name, "evaluate.NAME" and "hparams.NAME" among them.
        only: keep the cells with one of these values of an axis.

    Raises:
        UserError: no such definition, axis, value or option, a command would refuse a run, or two
            cells are the same run.
    """
    definition = read_definition(name)
    if seeds is not None:
        check_seeds(seeds, "--seeds")
    parts = definition.parts
    if small:
        parts = select_small(parts, definition.name)
    settings, only = settings or {}, only or {}
    check_settings(settings, parts)
    check_only(only, parts)
    count = count_runs(parts, only, seeds)
    if count > MOST_RUNS:
        raise UserError(
            f"{definition.name} stands for {count:,} runs: expected at most {MOST_RUNS:,}; keep "
            "some of them by --only, or change a copy of the definition."
        )
    runs: dict[str, Run] = {}
    paper: list[dict[str, Any]] = []
    for part in parts:
        cells = cells_of(part, only)
        paper += paper_cells(part, cells, definition.name)
        stages = [_checked(part, cell, settings) for cell in cells]
        for seed in part.seeds if seeds is None else seeds:
            for cell, own in zip(cells, stages, strict=True):
                run = _run(part, cell, own, seed)
                if run.id in runs:
                    raise UserError(
                        f"'{runs[run.id].title}' and '{run.title}' of {definition.name} are the "
                        "same run: leave one of the two out of the definition."
                    )
                runs[run.id] = run
    if not runs:
        raise UserError(f"--only leaves no run of {definition.name}: give fewer of its keys.")
    ordered = tuple(sorted(runs.values(), key=lambda run: run.seed))
    return Sweep(definition.name, definition.title, paper, ordered, definition.text)


def select_small(parts: list[Part], name: str) -> list[Part]:
    """The parts in their small setting.

    Raises:
        UserError: one has none.
    """
    if any(part.small is None for part in parts):
        raise UserError(f"{name} has no small setting: leave out --small, or use --only and --set.")
    return [_small(part, part.small or {}) for part in parts]


def _small(part: Part, small: Mapping[str, Any]) -> Part:
    only = small.get("only", {})
    axes = {
        axis: [choice for choice in choices if choice.name in only.get(axis, [choice.name])]
        for axis, choices in part.axes.items()
    }
    return part._replace(
        axes=axes,
        seeds=small.get("seeds", part.seeds),
        options={**part.options, **small.get("options", {})},
        evaluate={**part.evaluate, **small.get("evaluate", {})},
    )


def check_only(only: Mapping[str, list[str]], parts: list[Part]) -> None:
    """Raise a UserError where no part has an axis, or no part's axis a value."""
    names: dict[str, list[str]] = {}
    for part in parts:
        if part.name:
            names.setdefault(PART, []).append(part.name)
        for axis, choices in part.axes.items():
            names.setdefault(axis, []).extend(choice.name for choice in choices)
    for axis, values in only.items():
        check_name(axis, names, "--only names the unknown axis")
        for value in values:
            check_name(value, dict.fromkeys(names[axis]), f"--only: {axis} has no value")


def count_runs(parts: list[Part], only: Mapping[str, list[str]], seeds: list[int] | None) -> int:
    """How many runs parts stand for, without making them."""
    return sum(
        math.prod(map(len, _kept(part, only))) * len(part.seeds if seeds is None else seeds)
        for part in parts
    )


def cells_of(part: Part, only: Mapping[str, list[str]]) -> list[Cell]:
    """Every combination of the part's choices that `only` keeps; none if it lacks such an axis."""
    return [
        dict(zip(part.axes, each, strict=True)) for each in itertools.product(*_kept(part, only))
    ]


def _kept(part: Part, only: Mapping[str, list[str]]) -> list[list[Choice]]:
    for axis in only:
        if axis not in part.axes and not (axis == PART and part.name in only[axis]):
            return [[]]
    return [
        [choice for choice in choices if choice.name in only.get(axis, [choice.name])]
        for axis, choices in part.axes.items()
    ]


def check_settings(settings: Mapping[str, str], parts: list[Part]) -> None:
    """Raise a UserError where no run takes an option of --set, or an axis decides about it."""
    known = dict.fromkeys(itertools.chain.from_iterable(_settable(part) for part in parts))
    for key, text in settings.items():
        outer, dot, inner = key.partition(".")
        if outer != "hparams":
            check_value(inner or outer, text, "--set")
        if not (dot and outer == "hparams" and outer in known):
            check_name(key, known, "--set has an option that no run takes,")
        for part in parts:
            for axis, choices in part.axes.items():
                if any(key in _flat(choice.options) for choice in choices):
                    raise UserError(
                        f"--set is '{key}', which the axis '{axis}' decides about: choose among "
                        "its values by --only, or change a copy of the definition."
                    )


def _settable(part: Part) -> Iterable[str]:
    yield from known_options(training_command(part.command, adversarial=part.adversarial))
    if part.command == "robust":
        yield from (f"evaluate.{name}" for name in known_options(EVALUATE))


def _flat(options: Mapping[str, Any]) -> set[str]:
    names = set(options)
    for name, value in options.items():
        if isinstance(value, Mapping):
            names |= {f"{name}.{inner}" for inner in value}
    return names


def _checked(part: Part, cell: Cell, settings: Mapping[str, str]) -> tuple[Stage, ...]:
    """The stages of a cell's runs; raises a UserError where a command would refuse one."""
    stages = _stages(part, cell, settings)
    try:
        for stage in stages:
            stage.check()
    except UserError as error:
        names = ", ".join(_shown(*each) for each in cell.items()) or part.name or "a run"
        raise UserError(f"{names}: {error}") from None
    return stages


def _run(part: Part, cell: Cell, stages: tuple[Stage, ...], seed: int) -> Run:
    prefix = f"{part.name}: " if part.name else ""
    return Run(
        id=_identity(stages, seed),
        title=prefix + ", ".join([*(_shown(*each) for each in cell.items()), f"seed {seed}"]),
        cell=cell_names(part, cell),
        seed=seed,
        stages=stages,
        forwards=forwards(stages),
    )


def _stages(part: Part, cell: Cell, settings: Mapping[str, str]) -> tuple[Stage, ...]:
    options, evaluate = dict(part.options), dict(part.evaluate)
    for choice in cell.values():
        options = _merged(options, choice.options)
    command = training_command(part.command, adversarial=part.adversarial)
    known = known_options(command)
    for key, text in settings.items():
        outer, _, inner = key.rpartition(".")
        if outer == "evaluate" and part.command == "robust":
            evaluate[inner] = _value(inner, text)
        elif outer == "hparams" and outer in known:
            options = _merged(options, {outer: {inner: _json_value(text)}})
        elif key in known:
            options[key] = _value(key, text)
    # What all rows are given is for those that have it.
    chosen = {name for choice in cell.values() for name in choice.options}
    options = {
        name: value
        for name, value in options.items()
        if name in chosen or part.command == "domainbed" or not lacks(options, name)
    }
    train = Stage(command, options)
    if part.command != "robust":
        return (train,)
    place = {name: value for name, value in options.items() if name in ("data_dir", "download")}
    return train, Stage(EVALUATE, {**place, **evaluate, **_budgets(part, options)})


def _shown(axis: str, choice: Choice) -> str:
    """A choice in a title: a bare number says nothing without its axis."""
    return f"{axis} {choice.name}" if choice.name[:1].isdigit() else choice.name


def _merged(options: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Options with more of them, hyper-parameters of `hparams` one by one."""
    merged = {**options, **more}
    for name, value in more.items():
        if isinstance(value, Mapping):
            merged[name] = {**options.get(name, {}), **value}
    return merged


def _value(name: str, text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    if name == "hparams":
        raise UserError(f"--set is 'hparams={text}': give one, as in --set hparams.lr=0.001.")
    return text.split(",") if name in _LISTS else text


def _json_value(text: str) -> Any:
    """A hyper-parameter of --set: JSON, such as a number or true, or else a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _budgets(part: Part, options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Options of the evaluation that say at which budgets it measures."""
    measures = part.measures
    if not measures:
        if not {"norm", "eps"} <= options.keys():
            raise UserError(
                f"The runs of {part.name or 'the definition'} have neither norm and eps nor "
                "measures: say at which budgets robustness is to be measured."
            )
        measures = [{"norm": options["norm"], "eps": canonical(options["eps"])}]
    budgets: dict[str, list[str]] = {}
    for measure in measures:
        budgets.setdefault(measure["norm"], []).append(measure["eps"])
    return {"norm": list(budgets), **budgets}


def _identity(stages: tuple[Stage, ...], seed: int) -> str:
    """Hash what decides about the result; stable across processes and versions of Python."""
    # Of a folder of images, the folder is the data set.
    folder = {"data_dir"} if stages[0].options.get("dataset") == "folder" else set()
    free = NOT_IDENTITY - folder
    content = [
        [stage.command, {k: canonical(each) for k, each in stage.options.items() if k not in free}]
        for stage in stages
    ]
    text = json.dumps([content, seed], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
