"""The `core-tuning` command: finds the module of a sub-command and reports users' mistakes.

Nothing heavy is imported before a sub-command is known, so that --help answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import sys

from . import __version__
from .errors import UserError
from .stopping import Stopped, stoppable

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
    """Run a command line; return its exit code.

    It is 0, 2 for a user's mistake or what the system refuses, and 130 or 143 where Ctrl-C or
    SIGTERM stopped it.
    """
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no "±" gets "\\xb1", and no error after all the work.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            try:
                code = _dispatch(arguments)
            except SystemExit:
                # Of --help.
                _flush()
                raise
            _flush()
            return code
    except UserError as error:
        return _fail(error)
    except BrokenPipeError:
        return _fail("the output was closed before its end; what was written to files is whole.")
    except OSError as error:
        return _fail(f"{error.filename or 'the output'} cannot be used: {error.strerror or error}.")
    except KeyboardInterrupt as stopped:
        by = f" by {stopped}" if isinstance(stopped, Stopped) else ""
        print(
            f"core-tuning: stopped{by}; what is done is saved, and --resume goes on with a run.",
            file=sys.stderr,
        )
        return stopped.exit_code if isinstance(stopped, Stopped) else 130


def _flush() -> None:
    # Where it cannot be written, that is said now and not when Python ends.
    if sys.stdout is not None:
        sys.stdout.flush()


def _fail(reason: object) -> int:
    print(f"core-tuning: error: {reason}", file=sys.stderr)
    if sys.stdout is not None:
        # What is left in its buffer would fail again when Python ends.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            return 2
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


def _dispatch(arguments: list[str]) -> int:
    for argument in arguments:
        # Of no shell, but of a program that calls `main`; a system call would raise a ValueError.
        if "\0" in argument:
            raise UserError(f"{argument!r} has a NUL in it, as no name can have: leave it out.")
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
