"""Reads the command line of a DomainBed script as the script's own parser will read it.

The names of the options are looked up in the script itself, so that this holds for the many
copies of DomainBed that have more of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_OPTION = re.compile(r"""add_argument\(\s*["'](--\w+)["']""")


def options_of(script: Path) -> list[str]:
    """Names of the options that a script declares, such as "--steps"."""
    return _OPTION.findall(script.read_text(encoding="utf-8", errors="replace"))


def resolve(token: str, options: Iterable[str]) -> str | None:
    """Return the option that a token such as "--ste" names: itself or its one completion."""
    known = list(options)
    if token in known:
        return token
    completions = [option for option in known if option.startswith(token)]
    return completions[0] if len(completions) == 1 else None


def option_values(arguments: Sequence[str], options: Iterable[str]) -> dict[str, list[str]]:
    """Map each option that is given to its values; where it is given twice the last one counts."""
    known = list(options)
    found: dict[str, list[str]] = {}
    values: list[str] = []
    for argument in arguments:
        if not argument.startswith("--"):
            values.append(argument)
            continue
        token, equals, value = argument.partition("=")
        values = [value] if equals else []
        option = resolve(token, known)
        if option is not None:
            found[option] = values
    return found


def steps_of_train(program: Sequence[str]) -> int | None:
    """Return the --steps of a command line of DomainBed's train, or None.

    Args:
        program: `sys.argv` of a process, the path of its script first.
    """
    if not program:
        return None
    script = Path(program[0])
    if script.parts[-3:] not in (
        ("domainbed", "scripts", "train.py"),
        ("domainbed", "scripts", "train_autolr.py"),
    ):
        return None
    values = option_values(program[1:], options_of(script)).get("--steps")
    # Zero steps mean the data set's own number to DomainBed.
    return int(values[0]) or None if values else None
