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


def option(
    default: Any,
    help: str = "",
    *,
    choices: Iterable[str] = (),
    metavar: str | None = None,
    says: str | None = None,
    positional: bool = False,
    also: Sequence[str] = (),
    at_least: int = 0,
    bare: bool = False,
    extend: bool = False,
    range: str | None = None,
    search: Sequence[float] = (),
) -> Any:
    """Declare an option, a field of a dataclass; its flag, type and range follow from its name.

    Args:
        default: of the field; None where something else decides, which `says` names.
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
    metadata = {
        "help": help,
        "choices": tuple(choices),
        "metavar": metavar,
        "says": says,
        "positional": positional,
        "also": tuple(also),
        "at_least": at_least,
        "bare": bare,
        "extend": extend,
        "range": range,
        "search": tuple(search),
    }
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def redeclare(base: type, name: str, default: Any, **changes: Any) -> Any:
    """Declare an option of a base class again, with another default.

    Args:
        base: dataclass that has it.
        name: of the option.
        default: as in `option`.
        changes: to what `option` takes besides.
    """
    [before] = [field for field in dataclasses.fields(base) if field.name == name]
    metadata = {**before.metadata, "says": None, **changes}
    return dataclasses.field(default=default, metadata=metadata)


def spread(declare: Callable[[], Iterable[Option]]) -> Any:
    """Declare a field that holds the values of several options which are declared elsewhere."""
    return dataclasses.field(default_factory=dict, metadata={"spread": declare})


# A sweep checks thousands of command lines.
_PARSERS: dict[tuple[str, type], Parser] = {}
_DECLARED: dict[type, list[Option]] = {}
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
    """An option as the command line knows it; attributes as in `option`."""

    name: str
    group: str
    kind: Any
    is_list: bool
    default: Any
    metadata: Mapping[str, Any]

    @property
    def flag(self) -> str:
        """The flag that switches on or takes a value."""
        return f"--{self.name.replace('_', '-')}"


def declared(cls: type) -> list[Option]:
    """The options that a dataclass has: its own, then those of its bases, group by group."""
    if cls not in _DECLARED:
        _DECLARED[cls] = _find_options(cls)
    return list(_DECLARED[cls])


def _find_options(cls: type) -> list[Option]:
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    owners: dict[str, type] = {}
    for base in reversed(cls.__mro__):
        for name in vars(base).get("__annotations__", {}):
            owners.setdefault(name, base)
    found: dict[str, Option] = {}
    for base in cls.__mro__:
        title = "options" if base is cls else (base.__doc__ or "").splitlines()[0]
        for name in (name for name, owner in owners.items() if owner is base and name in fields):
            field = fields[name]
            if "spread" in field.metadata:
                for each in field.metadata["spread"]():
                    found.setdefault(each.name, each._replace(group=title))
            elif "help" in field.metadata:
                found[name] = _option(field, hints[name], title)
    return list(found.values())


def _option(field: dataclasses.Field[Any], hint: Any, group: str) -> Option:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    is_list = typing.get_origin(hint) is list
    kind = typing.get_args(hint)[0] if is_list else typing.get_origin(hint) or hint
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Option(field.name, group, kind, is_list, default, field.metadata)


def parse(prog: str, cls: type[O], argv: Sequence[str]) -> O:
    """Read a command line.

    Args:
        prog: the command, for --help and messages.
        cls: declares its options; its docstring is the text of --help.
        argv: without the command; hyphens and underscores in flags are the same.

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
    several = any(each.is_list and each.metadata["positional"] for each in declared(cls))
    read = parser.parse_intermixed_args if several else parser.parse_args
    given = vars(read(arguments))
    for each in declared(cls):
        # Here, because argparse would hide what is wrong with it.
        if each.kind is dict and each.name in given:
            given[each.name] = json_object(given[each.name], each.flag)
    return {name: value for name, value in given.items() if value is not None}


def build(cls: type[O], values: Mapping[str, Any]) -> O:
    """Make a command's options of the given values, checked and completed."""
    options = declared(cls)
    _check_ranges(options, values)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    plain = {name: value for name, value in values.items() if name in fields}
    others = {name: value for name, value in values.items() if name not in fields}
    for name, field in fields.items():
        if "spread" in field.metadata:
            plain[name] = others
    made = cls(**plain)
    made.complete()
    return made


def check_values(command: str, cls: type[O], values: Mapping[str, Any]) -> O:
    """Check plain values, as of TOML or JSON, in the way that the command line is checked.

    Raises:
        UserError: a name or a value that the command does not take.
    """
    return parse(f"core-tuning {command}", cls, to_argv(cls, values))


def to_argv(cls: type[Options], values: Mapping[str, Any]) -> list[str]:
    """Write the command line of plain option values; what is None is left out.

    Raises:
        UserError: a name is not one of the command's.
    """
    by_name = {option.name: option for option in declared(cls)}
    first: list[str] = []
    flags: list[str] = []
    for name, value in values.items():
        option = by_name.get(check_name(name, by_name, "There is no option"))
        assert option is not None
        if value is None:
            continue
        if option.metadata["positional"]:
            first += [_text(each) for each in _as_list(value)]
        elif isinstance(value, bool):
            if value != option.default:
                flags.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif option.is_list:
            flags += [option.flag, *(_text(each) for each in _as_list(value))]
        elif (text := _text(value)).startswith("-"):
            flags.append(f"{option.flag}={text}")
        else:
            flags += [option.flag, text]
    return first + flags


def plain_values(options: Options) -> dict[str, Any]:
    """All option values, as JSON and TOML have them."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if "spread" in field.metadata:
            values |= value
        elif "help" in field.metadata:
            values[field.name] = _plain(value)
    return values


def check_name(name: str, known: Iterable[str], what: str, *, why: str = "") -> str:
    """Return a name that is known; refuse another with the nearest of those that are.

    Args:
        name: to check.
        known: names.
        what: begins the sentence, such as "table02.toml has an unknown key".
        why: ends it where no name is near.
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
    doc, _, epilog = (cls.__doc__ or "").partition("Example: ")
    parser = Parser(
        prog=prog,
        usage=f"{prog} [options]",
        description=doc.strip(),
        epilog=f"Example: {epilog.strip()}" if epilog else None,
        allow_abbrev=False,
        add_help=add_help,
        argument_default=argparse.SUPPRESS,
    )
    # No flag begins with a digit: "-8/255" and "-1e3" are values, wrong as they may be.
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    groups: dict[str, argparse._ArgumentGroup] = {}
    positionals = []
    fields = [field.name for field in dataclasses.fields(cls)]
    # What is given without a flag is read in the order of the fields, those of bases first.
    first = [option for option in declared(cls) if option.metadata["positional"]]
    first.sort(key=lambda option: fields.index(option.name))
    for option in [*first, *(each for each in declared(cls) if each not in first)]:
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        _add(groups[option.group], option)
        if option.metadata["positional"]:
            positionals.append(option.metadata["metavar"] or option.name.upper())
    parser.usage = " ".join([prog, *positionals, "[options]"])
    return parser


def _add(group: argparse._ArgumentGroup, option: Option) -> None:
    metadata = option.metadata
    help = _help(option)
    if option.kind is bool:
        flags = {
            True: [f"--no-{option.flag[2:]}"],
            False: [option.flag],
            None: [option.flag],
        }[option.default]
        actions: dict[Any, Any] = {True: "store_false", False: "store_true"}
        action = actions.get(option.default, argparse.BooleanOptionalAction)
        group.add_argument(
            *flags, *map(_hyphens, metadata["also"]), action=action, dest=option.name, help=help,
            default=argparse.SUPPRESS,
        )  # fmt: skip
        return
    settings: dict[str, Any] = {"help": help, "default": argparse.SUPPRESS}
    if option.kind in (int, float):
        settings["type"] = option.kind
    elif option.kind is Path:
        settings["type"] = Path
    if metadata["choices"]:
        settings["choices"] = metadata["choices"]
    metavars = {int: "N", float: "X", Path: "PATH", dict: "JSON"}
    if not metadata["choices"]:
        settings["metavar"] = metadata["metavar"] or metavars.get(option.kind, "NAME")
    if option.is_list:
        settings["nargs"] = "+" if metadata["at_least"] else "*"
        settings["action"] = "extend" if metadata["extend"] else "store"
    if metadata["bare"]:
        settings |= {"nargs": "?", "const": True}
    if metadata["positional"]:
        if option.default is not dataclasses.MISSING:
            settings.setdefault("nargs", "?")
            # argparse would read SUPPRESS as if it had been given.
            settings["default"] = None
        group.add_argument(option.name, **settings)
    else:
        flags = [option.flag, *map(_hyphens, metadata["also"])]
        group.add_argument(*flags, dest=option.name, **settings)


def _help(option: Option) -> str:
    text, default = option.metadata["help"], option.default
    says = option.metadata["says"]
    hidden = option.kind is bool or option.metadata["bare"]
    if says is None and not hidden and default not in (None, dataclasses.MISSING):
        says = " ".join(map(_text, _as_list(default))) if default != [] else None
    if says:
        text = f"{text} (default: {says})" if text else f"default: {says}"
    return text.replace("%", "%%")


def _check_ranges(options: Iterable[Option], values: Mapping[str, Any]) -> None:
    for option in options:
        name = option.metadata["range"] or option.name
        if name in RANGES and option.kind in (int, float):
            for value in _as_list(values.get(option.name)):
                if value is not None:
                    check_range(name, value, option.flag)
        if option.is_list and option.name in values:
            texts = values[option.name]
            if len(texts) < option.metadata["at_least"]:
                raise UserError(f"{option.flag} is empty: give at least one value.")


def json_object(text: str, name: str = "--hparams") -> dict[str, Any]:
    """Read a JSON object of finite numbers and texts.

    Args:
        text: JSON.
        name: begins the sentence that a user reads.

    Raises:
        UserError: it is not one.
    """
    try:
        values = json.loads(text)
    # Brackets in brackets in brackets exhaust Python's stack.
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{name} is {text[:80]!r}, which is not JSON ({error}): expected an object such as "
            "'{\"eta\": 1.0}'."
        ) from error
    if not isinstance(values, dict):
        raise UserError(
            f"{name} is {text[:80]!r}: expected a JSON object such as '{{\"eta\": 1.0}}'."
        )
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
