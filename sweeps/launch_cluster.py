"""Jobs as the tasks of a Slurm job array, by submitit, or of Ray; see `launch`.

A job that another process is making is a task too, which ends at once with `launch.HELD`.
"""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from core_tuning.cores import available_cores
from core_tuning.errors import UserError

from .launch import RESTARTS, Ended, Job, Place, run_and_wait

SLURM_POLL_SECONDS = 2.0
RAY_POLL_SECONDS = 1.0
# Unless told otherwise, in place of submitit's 5 minutes.
DAY_MINUTES = 24 * 60
# A run goes on as a new job when its time is over, so many times.
TIMEOUTS = 20
# Chosen here, not by sbatch: submitit's executor, of which "local" needs no Slurm.
CLUSTER = "cluster"
CLUSTERS = ("slurm", "local", "debug")
_RENAMED = {"gpus": "gpus_per_node", "cpus": "cpus_per_task", "memory": "mem"}
_NUMBERS = ("array_parallelism", "cpus_per_task", "gpus_per_node", "nodes", "ntasks_per_node")


class Task:
    """What submitit pickles for a job that resumes: it is submitted again if it is stopped."""

    def __call__(self, job: Job) -> int:
        """Run the job; return its exit code."""
        return run_and_wait(job)

    def checkpoint(self, job: Job) -> Any:
        """What to submit when the time is over or the job is preempted: it goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


def launch_slurm(jobs: Sequence[Job], place: Place, is_held: Callable[[str], bool]) -> Ended:
    """Submit jobs as one array; interrupted, it leaves the array to Slurm.

    Raises:
        UserError: Slurm is missing or refuses the array, or a parameter is wrong.
    """
    import submitit

    executor = make_executor(place)
    try:
        submitted = executor.map_array(Task() if jobs[0].resumes else run_and_wait, jobs)
    except (RuntimeError, submitit.core.utils.FailedJobError, OSError) as error:
        raise UserError(
            f"Slurm did not take the runs ({' '.join(str(error).split())}): check --slurm."
        ) from error
    array = submitted[0].job_id.split("_")[0]
    print(f"Submitted as {array}, output in {executor.folder}.", file=sys.stderr)
    working = dict(zip((job.id for job in jobs), submitted, strict=True))
    try:
        while working:
            for id in [id for id, task in working.items() if task.done()]:
                task = working.pop(id)
                lost = f"Slurm ended its job, see {task.paths.stderr}"
                yield id, lost if task.exception() is not None else task.result()
            if working:
                time.sleep(SLURM_POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        print(f"core-tuning: the jobs go on without this; 'scancel {array}' ends them.",
              file=sys.stderr)  # fmt: skip
        raise


def make_executor(place: Place) -> Any:
    """Return submitit's executor for a place.

    Raises:
        UserError: Slurm is missing here, or a parameter is wrong.
    """
    import submitit

    parameters = dict(place.slurm)
    cluster = parameters.pop(CLUSTER, "slurm")
    if cluster not in CLUSTERS:
        raise UserError(f"--slurm {CLUSTER} is '{cluster}': expected one of {', '.join(CLUSTERS)}.")
    try:
        executor = submitit.AutoExecutor(
            place.output, cluster=cluster, slurm_max_num_timeout=TIMEOUTS
        )
    except RuntimeError as error:
        raise UserError(
            "The launcher needs Slurm, and there is no srun here: start it where sbatch is, or "
            f"try it with --slurm {CLUSTER}=local."
        ) from error
    if cluster == "slurm":
        executor.update_parameters(**sbatch_parameters(parameters, place.name, place.workers))
    else:
        # These executors need a number, and end a job that takes longer.
        executor.update_parameters(timeout_min=DAY_MINUTES)
    return executor


def sbatch_parameters(given: dict[str, str], name: str, workers: int | None) -> dict[str, Any]:
    """Translate --slurm KEY=VALUE into what submitit's AutoExecutor takes.

    Args:
        given: parameters of sbatch, with - or _; submitit's own names are taken too.
        name: of the sweep.
        workers: most runs at the same time; None for 256, submitit's default.

    Raises:
        UserError: what should be a number is not, or a key looks like another's typo.
    """
    from submitit.slurm.slurm import SlurmExecutor

    known = sorted(SlurmExecutor._valid_parameters())
    chosen: dict[str, Any] = {"slurm_job_name": f"sweep-{name}", "slurm_time": DAY_MINUTES}
    if workers is not None:
        chosen["slurm_array_parallelism"] = workers
    additional: dict[str, str] = {}
    for key, value in given.items():
        plain = key.replace("-", "_").removeprefix("slurm_")
        plain = _RENAMED.get(plain, plain)
        if plain in known:
            chosen[f"slurm_{plain}"] = _number(key, value) if plain in _NUMBERS else value
            continue
        nearest = difflib.get_close_matches(plain, known, n=1, cutoff=0.8)
        if nearest:
            raise UserError(f"--slurm has no '{key}'; did you mean '{nearest[0]}'?")
        # Options of sbatch that submitit has no name for.
        additional[key.replace("_", "-")] = value
    if additional:
        chosen["slurm_additional_parameters"] = additional
    return chosen


def _number(key: str, value: str) -> int:
    if not value.isdecimal():
        raise UserError(f"--slurm {key} is '{value}': expected a whole number.")
    return int(value)


def launch_ray(jobs: Sequence[Job], place: Place, is_held: Callable[[str], bool]) -> Ended:
    """Run jobs as tasks of a Ray cluster, which must share the folders that they use.

    Raises:
        UserError: no cluster answers at the address.
    """
    # Nothing is reported to anyone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    shows_output = jobs[0].log is None
    quiet: dict[str, Any] = {"log_to_driver": shows_output, "logging_level": "ERROR"}
    if place.ray_address is None:
        ray.init(address="local", num_cpus=available_cores(), include_dashboard=False, **quiet)
    else:
        try:
            ray.init(address=place.ray_address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(
                f"No Ray cluster answers at '{place.ray_address}' "
                f"({' '.join(str(error).split())}): check --ray-address, or leave it out to start "
                "Ray on this machine."
            ) from error
    try:
        resources = ray.cluster_resources()
        function = ray.remote(run_and_wait).options(
            num_cpus=cpus_each(resources.get("CPU", 1), place.workers),
            num_gpus=1 if resources.get("GPU", 0) > 0 else 0,
            # Begun again, what does not resume would write behind the attempt before.
            max_retries=RESTARTS if jobs[0].resumes else 0,
        )
        tasks = {function.remote(job): job.id for job in jobs}
        while tasks:
            ended, _ = ray.wait(list(tasks), timeout=RAY_POLL_SECONDS)
            for task in ended:
                try:
                    outcome = ray.get(task)
                except ray.exceptions.RayError as error:
                    outcome = f"Ray ended its job: {str(error).strip().splitlines()[-1]}"
                yield tasks.pop(task), outcome
    finally:
        # Ends the tasks too, and with them their processes.
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
