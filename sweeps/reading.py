"""Reads a definition: the TOML file that says what a sweep runs, checked key by key."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.files import require_file
from core_tuning.options import check_name

from .checking import (
    check_distinct,
    check_keys,
    check_seeds,
    check_value,
    read_options,
    typed,
)
from .claims import FINDING, Claim, read_claims
from .plan import (
    EVALUATE,
    KINDS,
    PART,
    ROW,
    Choice,
    Part,
    canonical,
    known_options,
    training_command,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PART_KEYS = (
    "command", "adversarial", "seeds", "options", "rows", "axes", "grid", "evaluate", "measures",
    "paper", "small",
)  # fmt: skip
_TOP_KEYS = ("title", "machine", PART, FINDING)
_CHOICE_KEYS = ("name", "options", "paper")
_SMALL_KEYS = ("seeds", "options", "evaluate", "only")
_PAPER_KEYS = ("table", "value", "where")
_MACHINE_KEYS = ("unit", "tflops")
_MEASURE_KEYS = ("norm", "eps")


class Definition(NamedTuple):
    """A definition's file. `machine` is {"unit", "tflops"} for the cost estimate, or empty."""

    name: str
    title: str
    machine: dict[str, Any]
    parts: list[Part]
    claims: list[Claim]
    text: str


def sweep_names() -> list[str]:
    """Names of the definitions that are shipped."""
    folder = files(__package__) / "definitions"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if is_toml(entry.name))


def read_definition(name: str) -> Definition:
    """Read a shipped definition by its name, or a user's by its path.

    Raises:
        UserError: there is none, it is no TOML, or something in it is unknown.
    """
    if not is_toml(name):
        check_sweep(name)
        text = (files(__package__) / "definitions" / f"{name}.toml").read_text("utf-8")
        return parse_definition(text, name, f"{name}.toml")
    path = Path(name)
    require_file(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise UserError(
            f"The definition {path} cannot be read ({reason}): name a .toml file, or a sweep of "
            "'core-tuning sweep list'."
        ) from error
    return parse_definition(text, path.stem, str(path))


def check_sweep(name: str) -> None:
    """Raise a UserError with the nearest name if no definition of this one is shipped."""
    padded = re.sub(r"^table_?(\d)$", r"table0\1", name)
    if padded != name and padded in sweep_names():
        raise UserError(f"There is no sweep '{name}': did you mean '{padded}'?")
    check_name(name, sweep_names(), "There is no sweep", why=", or a path to a .toml file")


def is_toml(name: str) -> bool:
    """Whether a sweep is named by the path of a definition."""
    return name.endswith(".toml")


def parse_definition(text: str, name: str, file: str) -> Definition:
    """Check the text of a definition; `file` is what messages call it."""
    contents = _parse_toml(text, file)
    several = contents.get(PART)
    check_keys(contents, (*_TOP_KEYS, *(() if several else _PART_KEYS)), file)
    title = typed(contents, "title", str, file, needed=True)
    machine = typed(contents, "machine", dict, file)
    check_keys(machine, _MACHINE_KEYS, f"{file}, machine")
    if machine:
        typed(machine, "unit", str, f"{file}, machine", needed=True)
        tflops = machine.get("tflops")
        if type(tflops) not in (int, float) or not 0 < tflops < float("inf"):
            raise UserError(f"{file}, machine: tflops is {tflops!r}: expected a number above 0.")
    if several:
        parts = [_part(each, file, named=True) for each in typed(contents, PART, list, file)]
        check_distinct([part.name for part in parts], f"{file}, [[part]]")
    else:
        given = {key: contents[key] for key in contents if key in _PART_KEYS}
        parts = [_part(given, file, named=False)]
    claims = read_claims(typed(contents, FINDING, list, file), parts, file)
    return Definition(name, title, machine, parts, claims, text)


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    # Nested too deeply, it exhausts Python's stack.
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not valid TOML ({error}): correct it there.") from error


def what_it_runs(text: str) -> dict[str, Any]:
    """The contents of a definition's text, but for what only the report reads, the claims.

    Raises:
        UserError: it is not TOML.
    """
    contents = _parse_toml(text, "The definition")
    return {key: value for key, value in contents.items() if key != FINDING}


def _part(given: Any, file: str, *, named: bool) -> Part:
    check_keys(given, (*(("name",) if named else ()), *_PART_KEYS), file)
    name = typed(given, "name", str, file, needed=True) if named else ""
    where = f"{file}, part '{name}'" if named else file
    command = typed(given, "command", str, where, needed=True)
    check_name(command, KINDS, f"{where} has the unknown command")
    adversarial = typed(given, "adversarial", bool, where, default=True)
    known = known_options(training_command(command, adversarial=adversarial))
    options = read_options(given, known, where)
    if command != "robust":
        for key in ("evaluate", "measures", "adversarial"):
            if key in given:
                raise UserError(
                    f"{where} has '{key}' with the command {command}: only 'robust' has it."
                )
    rows = {ROW: typed(given, "rows", list, where)} if "rows" in given else {}
    axes = typed(given, "axes", dict, where)
    grid = typed(given, "grid", dict, where)
    written = {**rows, **axes, **grid}
    check_distinct([*rows, *axes, *grid], f"{where}, axes")
    read = {axis: _axis(axis, values, known, where) for axis, values in written.items()}
    return Part(
        name=name,
        command=command,
        adversarial=adversarial,
        seeds=check_seeds(typed(given, "seeds", list, where, default=[0]), where),
        options=options,
        evaluate=read_options(given, known_options(EVALUATE), where, key="evaluate"),
        measures=[_measure(each, where) for each in typed(given, "measures", list, where)],
        axes=read,
        grid=list(grid),
        paper=_paper(given, where),
        small=_small(given, known, read, where),
    )


def _axis(axis: str, values: Any, known: tuple[str, ...], where: str) -> list[Choice]:
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}, {axis} is {values!r}: expected a list of values or of tables.")
    choices = []
    for value in values:
        if isinstance(value, dict):
            choices.append(_choice(value, known, f"{where}, {axis}"))
        else:
            check_name(axis, known, f"{where} has an axis that is not an option,")
            check_value(axis, value, where)
            choices.append(Choice(canonical(value), {axis: value}, {axis: canonical(value)}))
    check_distinct([choice.name for choice in choices], f"{where}, {axis}")
    return choices


def _choice(given: dict[str, Any], known: tuple[str, ...], where: str) -> Choice:
    check_keys(given, _CHOICE_KEYS, where)
    name = typed(given, "name", str, where, needed=True)
    paper = given.get("paper", {})
    if paper is not False and not isinstance(paper, dict):
        raise UserError(f"{where}, '{name}': paper is {paper!r}: expected a table, or false.")
    columns = None if paper is False else {key: canonical(each) for key, each in paper.items()}
    return Choice(name, read_options(given, known, f"{where}, '{name}'"), columns)


def _measure(given: Any, where: str) -> dict[str, str]:
    check_keys(given, _MEASURE_KEYS, f"{where}, measures")
    measure = {
        key: typed(given, key, str, f"{where}, measures", needed=True) for key in _MEASURE_KEYS
    }
    check_name(measure["norm"], ("l2", "linf"), f"{where}, measures has the unknown norm")
    return measure


def _paper(given: dict[str, Any], where: str) -> dict[str, Any] | None:
    if "paper" not in given:
        return None
    where = f"{where}, paper"
    paper = typed(given, "paper", dict, where)
    check_keys(paper, _PAPER_KEYS, where)
    value = paper.get("value")
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise UserError(f"{where}: value is {value!r}: expected a column or a list of columns.")
    return {
        "table": typed(paper, "table", str, where, needed=True),
        "value": values,
        "where": {key: canonical(each) for key, each in typed(paper, "where", dict, where).items()},
    }


def _small(
    given: dict[str, Any], known: tuple[str, ...], axes: dict[str, list[Choice]], where: str
) -> dict[str, Any] | None:
    if "small" not in given:
        return None
    where = f"{where}, small"
    small = typed(given, "small", dict, where)
    check_keys(small, _SMALL_KEYS, where)
    if "seeds" in small:
        check_seeds(small["seeds"], where)
    only = typed(small, "only", dict, where)
    for axis in only:
        check_name(axis, axes, f"{where}.only names the unknown axis")
        names = [choice.name for choice in axes[axis]]
        only[axis] = [canonical(value) for value in typed(only, axis, list, f"{where}.only")]
        for value in only[axis]:
            check_name(value, names, f"{where}.only: {axis} has no value")
    read_options(small, known, where)
    read_options(small, known_options(EVALUATE), where, key="evaluate")
    return small
