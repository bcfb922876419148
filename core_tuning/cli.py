"""The `core-tuning` command: finds the module of a sub-command and reports users' mistakes.

Nothing heavy is imported before a sub-command is known, so that --help answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import sys

from . import __version__
from .errors import UserError

# The one place that names the subpackages: command -> (module with main(argv), what it does).
COMMANDS = {
    "demo": (
        "core_tuning.algorithms.demo",
        "compare CE, CE-Con and Core-tuning on the embedded data, one domain left out",
    ),
    "finetune": (
        "core_tuning.classification.finetune",
        "fine-tune a checkpoint on a standard data set or a folder of images",
    ),
    "evaluate": (
        "core_tuning.classification.evaluate",
        "measure a finished run again, or on another data set",
    ),
    "robust": (
        "core_tuning.robustness.command",
        "train: fine-tune adversarially; evaluate: measure robustness without being misled",
    ),
    "dg": (
        "core_tuning.algorithms.dg",
        "leave-one-domain-out training by DomainBed's protocol, without DomainBed",
    ),
    "domainbed": (
        "core_tuning.algorithms.domainbed_command",
        "use Core-tuning in a DomainBed checkout: install, doctor, train, sweep, ...",
    ),
    "sweep": (
        "core_tuning.sweeps.command",
        "the runs behind a table of the paper: list, run, status, retry, report",
    ),
    "inspect": (
        "core_tuning.inspect_checkpoint",
        "say what a checkpoint file is and how to load it",
    ),
}
# Subpackages may not import each other: here `algorithms` finds who has launchers for DomainBed.
DOMAINBED_LAUNCHERS = "core_tuning.sweeps.domainbed_launchers"


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit code: 0, 2 for a user's mistake, 130 for Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        return _dispatch(arguments)
    except UserError as error:
        print(f"core-tuning: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("core-tuning: stopped; runs in progress go on with --resume.", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, *rest = arguments
    if command in ("-V", "--version", "version"):
        print(f"core-tuning {__version__}")
        return 0
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        raise UserError(f"'{command}' is no command: expected one of {', '.join(COMMANDS)}{hint}")
    module, _ = COMMANDS[command]
    return importlib.import_module(module).main(rest)


def _help() -> str:
    lines = [
        "usage: core-tuning COMMAND [options]",
        "",
        "Contrast-regularised fine-tuning of self-supervised visual models.",
        "",
        "commands:",
        *(f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "core-tuning COMMAND --help lists a command's options; core-tuning --version the version.",
    ]
    return "\n".join(lines)
