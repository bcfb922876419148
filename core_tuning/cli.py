"""The `core-tuning` command: finds the module of a sub-command and reports users' mistakes.

Nothing heavy is imported before a sub-command is known, so that --help answers at once.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys

from . import __version__
from .commands import COMMANDS, named
from .errors import UserError
from .options import check_name
from .stopping import Stopped, stoppable


def main(argv: list[str] | None = None) -> int:
    """Run a command line; return its exit code.

    It is 0, 2 for a user's mistake or what the system refuses, and 130 or 143 where Ctrl-C or
    SIGTERM stopped it.
    """
    arguments = sys.argv[1:] if argv is None else argv
    # What is imported stays: to look through it for garbage takes a fifth of a start.
    gc.set_threshold(50_000)
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
    if arguments[0] in ("-V", "--version", "version"):
        print(f"core-tuning {__version__}")
        return 0
    # "robust train" is a command of two words.
    words = 2 if any(name.startswith(f"{arguments[0]} ") for name in COMMANDS) else 1
    if words == 2 and arguments[1:2] in ([], ["-h"], ["--help"], ["help"]):
        print(_help(arguments[0]))
        return 0
    name, rest = " ".join(arguments[:words]), arguments[words:]
    known = [each for each in COMMANDS if words == 1 or each.startswith(f"{arguments[0]} ")]
    command = COMMANDS[check_name(name, known, "core-tuning does not have the command")]
    if not command.options:
        return named(command.main)(rest) or 0
    # Read first, so that a mistake is answered before what `main` imports.
    options = command.options_class().read(f"core-tuning {name}", rest)
    return named(command.main)(options) or 0


def _help(group: str = "") -> str:
    commands = {name: each for name, each in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, commands))
    return "\n".join(
        [
            f"usage: core-tuning {group or 'COMMAND'} [options]",
            "",
            "Contrast-regularised fine-tuning of self-supervised visual models.",
            "",
            "commands:",
            *(f"  {name:<{width}} {each.summary}" for name, each in commands.items()),
            "",
            "core-tuning COMMAND --help lists a command's options; core-tuning --version the "
            "version.",
        ]
    )
