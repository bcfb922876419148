"""Ways to start the runs of a sweep: on this machine, by Slurm, by Ray.

Every launcher starts `job.main` for each run, and what became of a run stands in the sweep's
folder; so a launcher that is killed leaves nothing to mend.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import NamedTuple

from core_tuning.errors import UserError

from .folder import SweepFolder
from .launch_local import launch_local
from .launch_ray import launch_ray
from .launch_slurm import launch_slurm
from .places import Place


class Launcher(NamedTuple):
    """A way to start runs.

    Attributes:
        launch: starts the runs of these ids and returns when all have ended or cannot be made.
        needs: the package to import; None if there is none.
    """

    launch: Callable[[SweepFolder, Sequence[str], Place], None]
    needs: str | None


LAUNCHERS = {
    "local": Launcher(launch_local, None),
    "slurm": Launcher(launch_slurm, "submitit"),
    "ray": Launcher(launch_ray, "ray"),
}


def check_installed(name: str) -> None:
    """Raise UserError if the package that a launcher needs is missing."""
    needs = LAUNCHERS[name].needs
    if needs is not None and importlib.util.find_spec(needs) is None:
        raise UserError(
            f"The launcher is '{name}', and {needs} is not installed: "
            "pip install 'core-tuning[sweeps]'."
        )
