"""Expands a part of a definition: its small setting, its cells, and the run of a cell and seed."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from core_tuning.errors import UserError
from core_tuning.options import check_name

from .arguments import (
    NOT_IDENTITY,
    canonical,
    check_options,
    done_file,
    evaluate_options,
    known_options,
    lacks,
    steps_of,
)
from .checking import check_value
from .cost import forwards
from .definition import Run
from .reading import PART, Choice, Part

# A choice of each axis, in the order of the axes.
Cell = dict[str, Choice]
# Options that take several values, which --set separates by commas.
_LISTS = ("attacks", "test_envs", "eps_warmup")


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


def cell_names(part: Part, cell: Cell) -> dict[str, str]:
    """What a run's `cell` holds: part, row and axes by name."""
    first = {PART: part.name} if part.name else {}
    return {**first, **{axis: choice.name for axis, choice in cell.items()}}


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
    yield from known_options(part.command, adversarial=part.adversarial)
    if part.command == "robust":
        yield from (f"evaluate.{name}" for name in evaluate_options())


def _flat(options: Mapping[str, Any]) -> set[str]:
    names = set(options)
    for name, value in options.items():
        if isinstance(value, Mapping):
            names |= {f"{name}.{inner}" for inner in value}
    return names


def check_cells(part: Part, cells: Iterable[Cell], settings: Mapping[str, str]) -> None:
    """Raise a UserError where a command would refuse the run of a cell."""
    for cell in cells:
        options, _ = _options_of(part, cell, settings)
        try:
            check_options(part.command, options, adversarial=part.adversarial)
        except UserError as error:
            names = ", ".join(_shown(*each) for each in cell.items()) or part.name or "a run"
            raise UserError(f"{names}: {error}") from None


def run_of(part: Part, cell: Cell, seed: int, settings: Mapping[str, str]) -> Run:
    """The run of a cell and a seed."""
    options, evaluate = _options_of(part, cell, settings)
    seed_text = f"seed {seed}"
    prefix = f"{part.name}: " if part.name else ""
    title = prefix + ", ".join([*(_shown(*each) for each in cell.items()), seed_text])
    return Run(
        id=_identity(part, options, evaluate, seed),
        title=title,
        cell=cell_names(part, cell),
        seed=seed,
        steps=steps_of(part.command, options, evaluate, seed, adversarial=part.adversarial),
        done=done_file(part.command),
        forwards=forwards(part, options, evaluate),
    )


def _options_of(
    part: Part, cell: Cell, settings: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of a cell's training, and of its evaluation."""
    options, evaluate = dict(part.options), dict(part.evaluate)
    for choice in cell.values():
        options = _merged(options, choice.options)
    known = known_options(part.command, adversarial=part.adversarial)
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
    if part.command == "robust":
        evaluate = {**evaluate, **_budgets(part, options)}
    return options, evaluate


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


def _identity(
    part: Part, options: Mapping[str, Any], evaluate: Mapping[str, Any], seed: int
) -> str:
    """Hash what decides about the result; stable across processes and versions of Python."""
    free = NOT_IDENTITY
    if options.get("dataset") == "folder":
        # There the folder is the data set.
        free = free - {"data_dir"}
    content = {
        "command": [part.command, canonical(part.adversarial)],
        "options": {name: canonical(each) for name, each in options.items() if name not in free},
        "evaluate": {name: canonical(each) for name, each in evaluate.items() if name not in free},
        "seed": seed,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
