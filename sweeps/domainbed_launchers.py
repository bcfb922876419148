"""Our launchers for DomainBed's own sweeps, whose launchers take a list of a shell's commands.

All of them return when their jobs have ended.
"""

from __future__ import annotations

import os
import shlex
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .commands import read_command
from .launchers import LAUNCHERS, check_installed
from .options import add_cluster, slurm_parameters
from .places import Place
from .processes import sigterm_as_exit

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


def take_place(arguments: Sequence[str] = ()) -> tuple[Place, list[str]]:
    """Take the options of our launchers out of a command line; those of $VARIABLE count too.

    Returns:
        Where jobs are to run, and the other arguments.

    Raises:
        UserError: one is out of range, or the variable holds something else.
    """
    parser = Parser(prog="core-tuning domainbed sweep", add_help=False, allow_abbrev=False)
    parser.add_argument("--jobs", type=int)
    add_cluster(parser)
    try:
        options = parser.parse_args(shlex.split(os.environ.get(VARIABLE, "")))
    except (UserError, ValueError) as error:
        raise UserError(
            f"{VARIABLE} is {os.environ[VARIABLE]!r} ({error}): expected options of "
            f"{', '.join(NAMES)}, such as '--jobs 4'."
        ) from error
    options, rest = parser.parse_known_args(arguments, options)
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"--jobs is {options.jobs}: expected at least 1.")
    return Place(options.jobs, slurm_parameters(options.slurm), options.ray_address), rest


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
        from .launch_slurm import make_executor

        with tempfile.TemporaryDirectory() as folder:
            make_executor(Path(folder), "check", place)


def launchers(place: Place | None = None) -> dict[str, Callable[[Sequence[str]], None]]:
    """Return our launchers by their names for DomainBed's REGISTRY.

    Args:
        place: of `take_place`; None reads $VARIABLE when a launcher is called.
    """
    return {name: _launcher(name, place) for name in NAMES}


def _launcher(name: str, place: Place | None) -> Callable[[Sequence[str]], None]:
    def launch(texts: Sequence[str]) -> None:
        chosen = take_place()[0] if place is None else place
        check_installed(NAMES[name])
        commands = [read_command(text) for text in texts]
        # A sweep that is finished launches none.
        if commands:
            with sigterm_as_exit():
                LAUNCHERS[NAMES[name]].run(commands, chosen)

    return launch
