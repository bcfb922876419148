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

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .names import DOMAINBED_STEPS

# One option may have several names: add_argument("-s", "--steps").
_DECLARATION = re.compile(r"""add_argument\(((?:\s*["']-[\w-]+["']\s*,?)+)""")
_NAME = re.compile(r"--[\w-]+")


def options_of(script: Path) -> list[str]:
    """Names of the options that a script declares, such as "--steps"."""
    text = script.read_text(encoding="utf-8", errors="replace")
    return [name for names in _DECLARATION.findall(text) for name in _NAME.findall(names)]


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
    script = Path(*program[:1])
    declared = options_of(script) if script.is_file() else []
    # Of options that are declared elsewhere the abbreviations are unknown.
    # Of a program that embeds Python there is no name either, which argparse would look for.
    parser = Parser(prog="", add_help=False, allow_abbrev=bool(set(wanted) & set(declared)))
    for name in {*declared, *wanted}:
        parser.add_argument(name, nargs="*", dest=name)
    with suppress(UserError):  # The script's own parser refuses it too.
        found = vars(parser.parse_known_args(program[1:])[0])
        return {name: found[name][0] for name in wanted if found[name]}
    return {}
