"""Runs and commands as the tasks of a Ray cluster, or of Ray on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from core_tuning.cores import available_cores
from core_tuning.errors import UserError

from .commands import Command, run_command
from .folder import SweepFolder
from .job import run_and_wait
from .places import Place
from .watching import Tally, Watch

POLL_SECONDS = 1.0
# A task whose node or process is gone is begun again so often.
RESTARTS = 2


def launch_ray(folder: SweepFolder, ids: Sequence[str], place: Place) -> None:
    """Make runs as Ray tasks and wait until all have ended; the folder must be a shared one.

    Raises:
        UserError: no cluster answers at the address.
    """
    with _started(place, run_and_wait, retries=RESTARTS, shows_output=False) as (ray, task):
        tasks = {task.remote(str(folder.path), id): id for id in ids}
        _wait(ray, Watch(folder, ids), tasks)


def run_ray(commands: Sequence[Command], place: Place) -> None:
    """Run commands as Ray tasks and wait until all have ended; what they write must be shared.

    Raises:
        UserError: no cluster answers at the address.
    """
    tally = Tally(len(commands))
    # Begun again, a command would write its results behind those of the attempt before.
    with _started(place, run_command, retries=0, shows_output=True) as (ray, task):
        tasks = {task.remote(command): command for command in commands}
        while tasks:
            ended, _ = ray.wait(list(tasks), timeout=POLL_SECONDS)
            for task_ended in ended:
                tally.say(_how_ended(tasks.pop(task_ended), _outcome(ray, task_ended)))


def _how_ended(command: Command, outcome: int | str) -> str:
    if isinstance(outcome, int):
        return command.ended(outcome)
    return f"Ray ended the job of {command.output}: {outcome}"


@contextmanager
def _started(
    place: Place, function: Callable[..., int], *, retries: int, shows_output: bool
) -> Iterator[tuple[Any, Any]]:
    """Start or join Ray for a while; give its module and the function as what makes tasks."""
    # Nothing is reported to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _join(ray, place, shows_output)
    try:
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        yield (
            ray,
            ray.remote(function).options(
                num_cpus=cpus_each(ray.cluster_resources().get("CPU", 1), place.workers),
                num_gpus=1 if gpus else 0,
                max_retries=retries,
            ),
        )
    finally:
        # Ends the tasks too, and with them their runs.
        ray.shutdown()


def _outcome(ray: Any, task: Any) -> int | str:
    """Exit code of a task that has ended, or why it has none."""
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return str(error).strip().split("\n")[-1]


def cpus_each(cpus: float, workers: int | None) -> float:
    """CPUs to reserve for a run, so that so many fit at the same time; 1 if None is given.

    Args:
        cpus: of the cluster.
        workers: runs at the same time.
    """
    if workers is None:
        return 1
    share = cpus / workers
    # Ray takes fractions only below one.
    return int(share) if share >= 1 else share


def _join(ray: Any, place: Place, shows_output: bool) -> None:
    quiet = {"log_to_driver": shows_output, "logging_level": "ERROR"}
    if place.ray_address is None:
        ray.init(address="local", num_cpus=available_cores(), include_dashboard=False, **quiet)
        return
    try:
        ray.init(address=place.ray_address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"No Ray cluster answers at '{place.ray_address}' ({' '.join(str(error).split())}): "
            "check --ray-address, or leave it out to start Ray on this machine."
        ) from error


def _wait(ray: Any, watch: Watch, tasks: dict[Any, str]) -> None:
    while tasks:
        ended, _ = ray.wait(list(tasks), timeout=POLL_SECONDS)
        watch.look()
        for task in ended:
            id = tasks.pop(task)
            outcome = _outcome(ray, task)
            if isinstance(outcome, int):
                outcome = f"its process ended with code {outcome}, see {watch.folder.log_path(id)}"
            watch.look([id])
            if id in watch.pending:
                watch.give_up(id, outcome)
