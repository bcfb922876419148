"""Runs as the tasks of a Ray cluster, or of Ray on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from core_tuning.cores import available_cores
from core_tuning.errors import UserError

from .folder import SweepFolder
from .job import run_and_wait
from .places import Place
from .watching import Watch

POLL_SECONDS = 1.0
# A task whose node or process is gone is begun again so often.
RESTARTS = 2


def launch_ray(folder: SweepFolder, ids: Sequence[str], place: Place) -> None:
    """Make runs as Ray tasks and wait until all have ended; the folder must be a shared one.

    Raises:
        UserError: no cluster answers at the address.
    """
    # Nothing is reported to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    _join(ray, place)
    try:
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        task = ray.remote(run_and_wait).options(
            num_cpus=cpus_each(ray.cluster_resources().get("CPU", 1), place.workers),
            num_gpus=1 if gpus else 0,
            max_retries=RESTARTS,
        )
        tasks = {task.remote(str(folder.path), id): id for id in ids}
        _wait(ray, Watch(folder, ids), tasks)
    finally:
        # Ends the tasks too, and with them their runs.
        ray.shutdown()


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


def _join(ray: Any, place: Place) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
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
            try:
                code = ray.get(task)
            except ray.exceptions.RayError as error:
                why = str(error).strip().split("\n")[-1]
            else:
                why = f"its process ended with code {code}, see {watch.folder.log_path(id)}"
            watch.look([id])
            if id in watch.pending:
                watch.give_up(id, why)
