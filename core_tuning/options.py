"""The bridge between a command's options, declared as a dataclass, and its command line.

    @dataclass(kw_only=True)
    class Greet(Options):
        "greeting"
        name: str = option("world", "who is greeted")
        times: int = option(1, "how often")

    parse("greet", Greet, ["--name", "you"])  # Greet(name='you', times=1)
    to_argv(Greet, {"name": "you"})           # ['--name', 'you']

Nothing here imports torch, so that a mistake is answered at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .checks import RANGES, check_range
from .errors import UserError, shown

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors: one sentence, exit code 2."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # argparse ignores that it cannot be written.
        print(message, end="", file=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print below its usage lines."""
        raise UserError(f"{message}; '{self.prog} --help' lists the options.")


@dataclass(frozen=True)
class Declaration:
    """What is declared of an option besides its name, type and default.

    Attributes:
        help: a line of --help, without the default.
        choices: the texts that it may be.
        metavar: stands for the value in --help.
        says: what --help says of the default in place of its value.
        positional: given without a flag.
        also: other flags, with their hyphens, such as those of DomainBed.
        at_least: number of values of a list that is given.
        bare: may be given without its value, and is then True.
        extend: a list that is given twice has the values of both.
        range: what `checks.RANGES` calls its range, where that is not its name.
        search: values of a random search.
    """

    help: str = ""
    choices: Sequence[str] = ()
    metavar: str | None = None
    says: str | None = None
    positional: bool = False
    also: Sequence[str] = ()
    at_least: int = 0
    bare: bool = False
    extend: bool = False
    range: str | None = None
    search: Sequence[float] = ()


def option(default: Any, help: str = "", **declared: Any) -> Any:
    """Declare an option, a field of a dataclass; its flag, type and range follow from its name.

    Args:
        default: of the field; None where something else decides, which `says` names.
        help: a line of --help, without the default.
        declared: as in `Declaration`.
    """
    metadata = {"option": Declaration(help, **declared)}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def redeclare(base: type, name: str, default: Any, **changes: Any) -> Any:
    """Declare an option of a base class again, with another default and changes besides."""
    [before] = [field for field in dataclasses.fields(base) if field.name == name]
    declaration = dataclasses.replace(before.metadata["option"], **{"says": None, **changes})
    return dataclasses.field(default=default, metadata={"option": declaration})


def spread(declare: Callable[[], Iterable[Option]]) -> Any:
    """Declare a field that holds the values of several options which are declared elsewhere."""
    return dataclasses.field(default_factory=dict, metadata={"spread": declare})


# A sweep checks thousands of command lines.
_PARSERS: dict[tuple[str, type], Parser] = {}
_DECLARED: dict[type, tuple[Option, ...]] = {}
O = TypeVar("O", bound="Options")  # noqa: E741


@dataclass(kw_only=True)
class Options:
    """Base of every command's options; the docstring of a base class titles its group in --help."""

    def complete(self) -> None:
        """Fill in what depends on other options, and check what concerns several of them."""

    @classmethod
    def read(cls: type[O], prog: str, argv: Sequence[str]) -> O:
        """Read a command line, as `parse` does."""
        return parse(prog, cls, argv)


class Option(typing.NamedTuple):
    """An option as the command line knows it."""

    name: str
    group: str
    kind: Any
    is_list: bool
    default: Any
    declaration: Declaration

    @property
    def flag(self) -> str:
        """The flag that switches on or takes a value."""
        return f"--{self.name.replace('_', '-')}"


def declared(cls: type) -> tuple[Option, ...]:
    """The options that a dataclass has: its own, then those of its bases, group by group."""
    if cls not in _DECLARED:
        _DECLARED[cls] = tuple(_find_options(cls))
    return _DECLARED[cls]


def _find_options(cls: type) -> Iterable[Option]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    # An option is in the group of the class that has declared it first.
    owners = {name: base for base in cls.__mro__ for name in vars(base).get("__annotations__", ())}
    found: dict[str, Option] = {}
    for base in cls.__mro__:
        title = "options" if base is cls else (base.__doc__ or "").splitlines()[0]
        for name in vars(base).get("__annotations__", ()):
            if owners[name] is not base:
                continue
            if "spread" in fields[name].metadata:
                for each in fields[name].metadata["spread"]():
                    found.setdefault(each.name, each._replace(group=title))
            elif "option" in fields[name].metadata:
                found[name] = _option(fields[name], hints[name], title)
    return found.values()


def _option(field: dataclasses.Field[Any], hint: Any, group: str) -> Option:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    is_list = typing.get_origin(hint) is list
    kind = typing.get_args(hint)[0] if is_list else typing.get_origin(hint) or hint
    made = field.default_factory
    default = field.default if made is dataclasses.MISSING else made()
    return Option(field.name, group, kind, is_list, default, field.metadata["option"])


def parse(prog: str, cls: type[O], argv: Sequence[str]) -> O:
    """Read a command line, of the command `prog`, into the dataclass that declares its options.

    Raises:
        UserError: an option is unknown, of another type or out of its range.
    """
    return build(cls, given_options(prog, cls, argv))


def given_options(prog: str, cls: type[Options], argv: Sequence[str]) -> dict[str, Any]:
    """The options that a command line gives, without those that it leaves out."""
    if (prog, cls) not in _PARSERS:
        _PARSERS[prog, cls] = make_parser(prog, cls)
    parser = _PARSERS[prog, cls]
    arguments = [_hyphens(argument) for argument in argv]
    # Of several values without a flag, some may stand behind options.
    several = any(each.is_list and each.declaration.positional for each in declared(cls))
    read = parser.parse_intermixed_args if several else parser.parse_args
    given = {name: value for name, value in vars(read(arguments)).items() if value is not None}
    for each in declared(cls):
        # Here, because argparse would hide what is wrong with it.
        if each.kind is dict and each.name in given:
            given[each.name] = json_object(given[each.name], each.flag)
    return given


def build(cls: type[O], values: Mapping[str, Any]) -> O:
    """Make a command's options of the given values, checked and completed."""
    for each in declared(cls):
        value = values.get(each.name)
        _check_range(each, value if each.is_list and value is not None else [value])
    fields = {field.name: field for field in dataclasses.fields(cls)}
    plain = {name: value for name, value in values.items() if name in fields}
    others = {name: value for name, value in values.items() if name not in fields}
    spreads = {name: others for name, field in fields.items() if "spread" in field.metadata}
    made = cls(**plain, **spreads)
    made.complete()
    return made


def _check_range(option: Option, values: Sequence[Any]) -> None:
    name = option.declaration.range or option.name
    if len(values) < option.declaration.at_least:
        raise UserError(f"{option.flag} is empty: give at least one value.")
    for value in values:
        if name in RANGES and option.kind in (int, float) and value is not None:
            check_range(name, value, option.flag)


def check_values(command: str, cls: type[O], values: Mapping[str, Any]) -> O:
    """Check plain values, as of TOML or JSON, in the way that the command line is checked."""
    return parse(f"core-tuning {command}", cls, to_argv(cls, values))


def to_argv(cls: type[Options], values: Mapping[str, Any]) -> list[str]:
    """Write the command line of plain option values; what is None is left out.

    Raises:
        UserError: a name is not one of the command's.
    """
    by_name = {option.name: option for option in declared(cls)}
    positionals: list[str] = []
    flags: list[str] = []
    for name, value in values.items():
        option = by_name[check_name(name, by_name, "There is no option")]
        if value is None or (isinstance(value, bool) and value == option.default):
            continue
        if option.declaration.positional:
            positionals += map(_text, _as_list(value))
        elif isinstance(value, bool):
            flags.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif option.is_list:
            flags += [option.flag, *map(_text, _as_list(value))]
        elif (text := _text(value)).startswith("-"):
            flags.append(f"{option.flag}={text}")
        else:
            flags += [option.flag, text]
    return positionals + flags


def plain_values(options: Options) -> dict[str, Any]:
    """All option values, as JSON and TOML have them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if "spread" in field.metadata:
            values |= value
        elif "option" in field.metadata:
            values[field.name] = _plain(value)
    return values


def check_name(name: str, known: Iterable[str], what: str, *, why: str = "") -> str:
    """Return a name that is known; refuse another with the nearest of those that are.

    `what` begins the sentence, such as "table02.toml has an unknown key"; `why` ends it.
    """
    known = list(known)
    if name in known:
        return name
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f"expected one of {', '.join(known)}{why}."
    raise UserError(
        f"{what} '{shown(name)}': {f'did you mean {by_lower[near[0]]!r}?' if near else hint}"
    )


def make_parser(prog: str, cls: type[Options], *, add_help: bool = True) -> Parser:
    """The parser of a command's options; what is not given is not in its namespace."""
    doc, _, example = (cls.__doc__ or "").partition("Example: ")
    # What is given without a flag is read in the order of the fields, those of bases first.
    fields = [field.name for field in dataclasses.fields(cls)]
    positionals = [each for each in declared(cls) if each.declaration.positional]
    positionals.sort(key=lambda option: fields.index(option.name))
    names = [each.declaration.metavar or each.name.upper() for each in positionals]
    parser = Parser(
        prog=prog,
        usage=" ".join([prog, *names, "[options]"]),
        description=doc.strip(),
        epilog=f"Example: {example.strip()}" if example else None,
        allow_abbrev=False,
        add_help=add_help,
        argument_default=argparse.SUPPRESS,
    )
    # No flag begins with a digit: "-8/255" and "-1e3" are values, wrong as they may be.
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in [*positionals, *(each for each in declared(cls) if each not in positionals)]:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        flags, settings = _argument(option)
        groups[option.group].add_argument(*flags, **settings)
    return parser


def _argument(option: Option) -> tuple[list[str], dict[str, Any]]:
    """What `add_argument` is given for an option."""
    declaration = option.declaration
    settings: dict[str, Any] = {"dest": option.name, "help": _help(option)}
    flags = [option.flag, *map(_hyphens, declaration.also)]
    if option.kind is bool:
        settings["action"] = argparse.BooleanOptionalAction
        if option.default is not None:
            settings["action"] = "store_false" if option.default else "store_true"
            flags[0] = f"--no-{option.flag[2:]}" if option.default else option.flag
        return flags, settings
    if option.kind in (int, float, Path):
        settings["type"] = option.kind
    if declaration.choices:
        settings["choices"] = declaration.choices
    else:
        metavars = {int: "N", float: "X", Path: "PATH", dict: "JSON"}
        settings["metavar"] = declaration.metavar or metavars.get(option.kind, "NAME")
    if option.is_list:
        settings["nargs"] = "+" if declaration.at_least else "*"
        settings["action"] = "extend" if declaration.extend else "store"
    if declaration.bare:
        settings |= {"nargs": "?", "const": True}
    if not declaration.positional:
        return flags, settings
    if option.default is not dataclasses.MISSING:
        # argparse would read SUPPRESS as if it had been given.
        settings = {"nargs": "?", **settings, "default": None}
    return [], settings


def _help(option: Option) -> str:
    text, says, default = option.declaration.help, option.declaration.says, option.default
    hidden = option.kind is bool or option.declaration.bare
    if says is None and not hidden and default not in (None, dataclasses.MISSING):
        says = " ".join(map(_text, _as_list(default)))
    if says:
        text = f"{text} (default: {says})" if text else f"default: {says}"
    return text.replace("%", "%%")


def json_object(text: str, name: str = "--hparams") -> dict[str, Any]:
    """Read a JSON object of finite numbers and texts, the value of the option `name`.

    Raises:
        UserError: it is not one.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"it is a {type(values).__name__}")
    # Brackets in brackets in brackets exhaust Python's stack.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} is {text[:80]!r} ({error}): expected a JSON object such as '{{\"eta\": 1.0}}'."
        ) from error
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value}: expected a finite number in {name}.")
    return values


def _hyphens(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value


def _text(value: Any) -> str:
    """Write a value so that 1, 1.0 and "1" are the same on a command line."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
