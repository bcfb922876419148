"""Reads the command line of a DomainBed script as the script's own parser will read it.

The names of the options are looked up in the script itself, so that this holds for the many
copies of DomainBed that have more of them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from .names import DOMAINBED_STEPS

# One option may have several names: add_argument("-s", "--steps").
_DECLARATION = re.compile(r"""add_argument\(((?:\s*["']-[\w-]+["']\s*,?)+)""")
_NAME = re.compile(r"--[\w-]+")


def options_of(script: Path) -> list[str]:
    """Names of the options that a script declares, such as "--steps"."""
    text = script.read_text(encoding="utf-8", errors="replace")
    return [name for names in _DECLARATION.findall(text) for name in _NAME.findall(names)]


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
        if argument == "--":  # What follows are not options.
            break
        if not argument.startswith("--"):
            values.append(argument)
            continue
        token, equals, value = argument.partition("=")
        values = [value] if equals else []
        option = resolve(token, known)
        if option is not None:
            found[option] = values
    return found


def run_steps(dataset: str = "") -> int:
    """Return how many steps the run of this process takes, as DomainBed's scripts determine it.

    It is the --steps of the command line, whatever the script, else the data set's N_STEPS in the
    copy of DomainBed that is imported, else the 5,001 of DomainBed itself.

    Args:
        dataset: name of the data set; by default the --dataset of the command line.
    """
    given = _given(sys.argv, ("--steps", "--dataset"))
    with suppress(ValueError):  # The script's own parser refuses what is not a number.
        # Zero steps mean the data set's own number to DomainBed.
        steps = int(given.get("--steps", "0"))
        if steps > 0:
            return steps
    name = dataset or given.get("--dataset", "")
    for module in ("domainbed.datasets", "domainbed.datasets.datasets"):
        found = getattr(getattr(sys.modules.get(module), name, None), "N_STEPS", None)
        if isinstance(found, int) and found > 0:
            return found
    return DOMAINBED_STEPS


def _given(program: Sequence[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return the values of options in a `sys.argv`, the path of its script first."""
    script, arguments = Path(*program[:1]), program[1:]
    declared = options_of(script) if script.is_file() else []
    # Of options that are declared elsewhere the abbreviations are unknown.
    written = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    found = {}
    for option in wanted:
        values = option_values(arguments, declared if option in declared else written).get(option)
        if values:
            found[option] = values[0]
    return found
