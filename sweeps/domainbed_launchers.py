"""Our launchers for DomainBed's own sweeps, whose launchers take a list of a shell's commands.

All of them return when their jobs have ended. Each command runs below `python -m` of this module,
which ends whatever the shell has started when it is ended itself, or when the launcher is gone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.options import build, make_parser

from .config import Jobs
from .launch import LAUNCHERS, Job, Place, check_installed, end, launch, sigterm_as_exit
from .progress import Tally

# Name for DomainBed, which has a `local` of its own -> key of LAUNCHERS.
NAMES = {f"core_{name}": name for name in LAUNCHERS}
VARIABLE = "CORE_TUNING_LAUNCHER"
NOTE = f"""
of {", ".join(NAMES)}, which are launchers beside DomainBed's:
  --jobs N               jobs at the same time (default: one a GPU, or one without a GPU)
  --slurm KEY=VALUE ...  parameters of sbatch, such as partition=gpu gpus=1 time=240
  --ray-address ADDRESS  of a Ray cluster to join (default: Ray starts on this machine)
They can stand in ${VARIABLE} too, as on a command line.
"""
_OUTPUT = "--output_dir"
# Of this machine's variables, those that decide what a command does, wherever it runs.
_OURS = "CORE_TUNING_"


def take_place(arguments: Sequence[str] = ()) -> tuple[Place, list[str]]:
    """Take the options of our launchers out of a command line; those of $VARIABLE count too.

    Returns:
        Where jobs are to run, and the other arguments.

    Raises:
        UserError: one is out of range, or the variable holds something else.
    """
    parser = make_parser("core-tuning domainbed sweep", Jobs, add_help=False)
    try:
        options = parser.parse_args(shlex.split(os.environ.get(VARIABLE, "")))
    except (UserError, ValueError) as error:
        raise UserError(
            f"{VARIABLE} is {os.environ[VARIABLE]!r} ({error}): expected options of "
            f"{', '.join(NAMES)}, such as '--jobs 4'."
        ) from error
    options, rest = parser.parse_known_args(arguments, options)
    jobs = build(Jobs, vars(options))
    return Place(jobs.jobs, jobs.parameters, jobs.ray_address), rest


def check(launcher: str, place: Place) -> None:
    """Refuse a launcher that cannot run here, before a sweep makes its jobs' folders.

    Args:
        launcher: a key of `NAMES`, or of DomainBed's.
        place: of `take_place`.

    Raises:
        UserError: a package or Slurm is missing, a parameter is wrong, or `place` is not that of
            a launcher of DomainBed's, which take no options.
    """
    if launcher not in NAMES:
        if place != Place():
            raise UserError(
                f"The launcher is '{launcher}', which takes neither --jobs nor --slurm nor "
                f"--ray-address (see {VARIABLE} too): expected one of {', '.join(NAMES)}."
            )
        return
    check_installed(NAMES[launcher])
    if NAMES[launcher] == "slurm":
        from .launch_cluster import make_executor

        with tempfile.TemporaryDirectory() as folder:
            make_executor(replace(place, output=folder))


def launchers(place: Place | None = None) -> dict[str, Callable[[Sequence[str]], None]]:
    """Return our launchers by their names for DomainBed's REGISTRY.

    Args:
        place: of `take_place`; None reads $VARIABLE when a launcher is called.
    """
    return {name: _launcher(name, place) for name in NAMES}


def _launcher(name: str, place: Place | None) -> Callable[[Sequence[str]], None]:
    def call(texts: Sequence[str]) -> None:
        chosen = take_place()[0] if place is None else place
        check_installed(NAMES[name])
        jobs = [job_of(text) for text in texts]
        # A sweep that is finished launches none.
        if not jobs:
            return
        sweep = Path(jobs[0].id).resolve().parent
        chosen = replace(chosen, name=sweep.name, output=str(sweep / "slurm"))
        tally = Tally(len(jobs))
        with sigterm_as_exit(), closing(launch(NAMES[name], jobs, chosen, lambda id: False)) as all:
            for id, code in all:
                how = "is done" if code == 0 else f"ended with exit code {code}"
                tally.say(f"the job of {id} {how if isinstance(code, int) else f'is lost: {code}'}")

    return call


def job_of(text: str) -> Job:
    """Return the job of a command of DomainBed's sweep, to be run in the working folder.

    Raises:
        UserError: it does not say where it writes.
    """
    words = shlex.split(text)
    if _OUTPUT not in words[:-1]:
        raise UserError(
            f"The command '{text}' names no {_OUTPUT}: expected one of DomainBed's sweep, for "
            "others use DomainBed's own launchers."
        )
    ours = tuple(each for each in os.environ.items() if each[0].startswith(_OURS))
    output = words[words.index(_OUTPUT) + 1]
    return Job(output, __name__, (text,), folder=str(Path.cwd()), environment=ours)


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
