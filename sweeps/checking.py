"""Checks of a definition's keys and values, with the sentence that a user reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core_tuning.checks import RANGES, check_range
from core_tuning.errors import UserError
from core_tuning.options import check_name

_TYPES = {dict: "a table", list: "a list", str: "a text", bool: "true or false"}
# Options whose values are not single ones.
_SHAPES = {"hparams": dict, "attacks": list}


def check_seeds(seeds: Any, where: str) -> list[int]:
    """Return seeds that are different, and numbers that torch takes.

    Raises:
        UserError: they are not.
    """
    fits = isinstance(seeds, list) and all(RANGES["seeds"].holds(seed) for seed in seeds)
    if not fits or not seeds or len(set(seeds)) < len(seeds):
        raise UserError(
            f"{where}: seeds is {seeds!r}: expected different whole numbers, {RANGES['seeds']}."
        )
    return seeds


def read_options(
    given: dict[str, Any], known: Iterable[str], where: str, key: str = "options"
) -> dict[str, Any]:
    """Options of a table's key, whose names must be known ones."""
    options = typed(given, key, dict, where)
    for name in options:
        check_name(name, known, f"{where}, {key} has an unknown option")
        if name in _SHAPES:
            typed(options, name, _SHAPES[name], f"{where}, {key}")
        check_value(name, options[name], f"{where}, {key}")
    return options


def check_value(name: str, value: Any, where: str) -> None:
    """Raise a UserError where an option's number, or each of several, is out of its range.

    Args:
        name: of the option.
        value: of a definition, or a text of --set.
        where: begins the sentence.
    """
    if name not in RANGES:
        return
    for each in value if isinstance(value, list) else [value]:
        number = each
        if isinstance(each, str):
            try:
                number = int(each) if RANGES[name].whole else float(each)
            except ValueError:
                raise UserError(f"{where}: {name} is '{each}': expected a number.") from None
        check_range(name, number, f"{where}: {name}")


def check_keys(given: Any, known: tuple[str, ...], where: str) -> None:
    """Raise a UserError where this is no table, or has an unknown key."""
    if not isinstance(given, dict):
        raise UserError(f"{where}: found {given!r}, expected a table.")
    for key in given:
        check_name(key, known, f"{where} has an unknown key")


def check_distinct(names: list[str], where: str) -> None:
    """Raise a UserError where a name stands twice."""
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: the name '{name}' stands there twice: give each once.")


def typed(
    given: dict[str, Any],
    key: str,
    kind: type,
    where: str,
    *,
    needed: bool = False,
    default: Any = None,
) -> Any:
    """A key's value of the type, else the default, which is an empty one of the type."""
    if key not in given and not needed:
        return kind() if default is None else default
    value = given.get(key)
    if not isinstance(value, kind):
        found = f"'{key}' is {value!r}" if key in given else f"'{key}' is missing"
        raise UserError(f"{where}: {found}, expected {_TYPES[kind]}.")
    return value
