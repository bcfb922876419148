"""Commands of a shell, as DomainBed's sweep hands them to a launcher.

Each runs below `python -m core_tuning.sweeps.commands COMMAND`, which ends whatever the shell has
started when it is ended itself, or when the launcher is gone.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from core_tuning.errors import UserError
from core_tuning.stopping import die_with_parent

from .processes import end, sigterm_as_exit

_OUTPUT = "--output_dir"
# Of this machine's variables, those that decide what a command does, wherever it runs.
_OURS = "CORE_TUNING_"


class Command(NamedTuple):
    """A command, and what of this process's surroundings it needs on another machine.

    Attributes:
        text: for a shell.
        output: folder of what it writes; relative to `folder`, or absolute.
        folder: to run it in.
        environment: variables to set besides those of where it runs.
    """

    text: str
    output: str
    folder: str
    environment: dict[str, str]

    def ended(self, code: int) -> str:
        """Say how it ended."""
        how = "is done" if code == 0 else f"ended with exit code {code}"
        return f"the job of {self.output} {how}"


def read_command(text: str) -> Command:
    """Return the command of a text, to be run in the working folder.

    Raises:
        UserError: it does not say where it writes.
    """
    words = shlex.split(text)
    if _OUTPUT not in words[:-1]:
        raise UserError(
            f"The command '{text}' names no {_OUTPUT}: expected one of DomainBed's sweep, for "
            "others use DomainBed's own launchers."
        )
    ours = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    return Command(text, words[words.index(_OUTPUT) + 1], str(Path.cwd()), ours)


def start_command(command: Command, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a command as a process that ends when this thread's process is gone.

    Args:
        command: to start; it prints where this process does.
        environment: variables to set besides this process's and the command's.
    """
    return subprocess.Popen(
        [sys.executable, "-m", __name__, command.text],
        cwd=command.folder,
        env={**os.environ, **command.environment, **environment},
        stdin=subprocess.DEVNULL,
        # A terminal's Ctrl-C is for the sweep, which then ends its jobs.
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )


def run_command(command: Command) -> int:
    """`start_command` and wait for it: what the processes of Slurm and Ray call."""
    process = start_command(command, {})
    try:
        return process.wait()
    finally:
        end(process)


def main(text: str) -> int:
    """Run a shell's command and all that it starts; return its exit code, as a shell would."""
    with sigterm_as_exit():
        # A group of its own, which is ended as a whole.
        process = subprocess.Popen(text, shell=True, start_new_session=True)
        try:
            code = process.wait()
        finally:
            end(process)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
