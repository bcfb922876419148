"""Ways to start the runs of a sweep: on this machine, by Slurm, by Ray.

Every launcher starts `job.main` for each run, and what became of a run stands in the sweep's
folder; so a launcher that is killed leaves nothing to mend. Each also runs the commands of
DomainBed's sweeps, see `domainbed_launchers`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

from core_tuning.errors import UserError

from .commands import Command
from .folder import SweepFolder
from .launch_local import launch_local, run_local
from .launch_ray import launch_ray, run_ray
from .launch_slurm import launch_slurm, run_slurm
from .places import Place


class Launcher(NamedTuple):
    """A way to start runs.

    Attributes:
        launch: starts the runs of these ids and returns when all have ended or cannot be made.
        run: runs commands, one at least, and returns when all have ended.
        needs: the package to import; None if there is none.
    """

    launch: Callable[[SweepFolder, Sequence[str], Place], None]
    run: Callable[[Sequence[Command], Place], None]
    needs: str | None


LAUNCHERS = {
    "local": Launcher(launch_local, run_local, None),
    "slurm": Launcher(launch_slurm, run_slurm, "submitit"),
    "ray": Launcher(launch_ray, run_ray, "ray"),
}


def check_installed(name: str) -> None:
    """Raise UserError if the package that a launcher needs is missing."""
    needs = LAUNCHERS[name].needs
    if needs is not None and importlib.util.find_spec(needs) is None:
        raise UserError(
            f"The launcher is '{name}', and {needs} is not installed: "
            "pip install 'core-tuning[sweeps]'."
        )
