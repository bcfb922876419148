"""Runs and commands as the tasks of a Slurm job array, by submitit."""

from __future__ import annotations

import difflib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError

from .commands import Command, run_command
from .folder import SweepFolder
from .job import run_and_wait
from .places import Place
from .watching import Tally, Watch

POLL_SECONDS = 2.0
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
    """What submitit pickles: a run of a sweep, submitted again if Slurm stops it early."""

    def __call__(self, folder: str, id: str) -> int:
        """Make the run; see `job.main` for what is returned."""
        return run_and_wait(folder, id)

    def checkpoint(self, folder: str, id: str) -> Any:
        """What to submit when the time is over or the job is preempted: the run goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, folder, id)


def launch_slurm(folder: SweepFolder, ids: Sequence[str], place: Place) -> None:
    """Submit runs as one job array and wait until all have ended.

    Interrupted, it leaves the array to Slurm; a later call finds what it did.

    Raises:
        UserError: Slurm is missing or refuses the array, or a parameter is wrong.
    """
    executor = make_executor(folder.path / "slurm", folder.name, place)
    watch = Watch(folder, ids)
    with _submitted(executor, Task(), [str(folder.path)] * len(ids), list(ids)) as jobs:
        _wait(watch, dict(zip(ids, jobs, strict=True)))


def run_slurm(commands: Sequence[Command], place: Place) -> None:
    """Submit commands as one job array and wait until all have ended.

    Interrupted, it leaves the array to Slurm. What the commands print is kept beside the folders
    that they write.

    Raises:
        UserError: Slurm is missing or refuses the array, or a parameter is wrong.
    """
    sweep = Path(commands[0].output).resolve().parent
    executor = make_executor(sweep / "slurm", sweep.name, place)
    tally = Tally(len(commands))
    with _submitted(executor, run_command, commands) as jobs:
        working = list(zip(commands, jobs, strict=True))
        while working:
            for command, job in [each for each in working if each[1].done()]:
                working.remove((command, job))
                tally.say(_how_ended(command, job))
            if working:
                time.sleep(POLL_SECONDS)


def _how_ended(command: Command, job: Any) -> str:
    if job.exception() is None:
        return command.ended(job.result())
    return f"Slurm ended the job of {command.output}, see {job.paths.stderr}"


@contextmanager
def _submitted(
    executor: Any, function: Callable[..., int], *arguments: Sequence[Any]
) -> Iterator[list[Any]]:
    """Submit a call for each of the arguments; say what becomes of them where this is stopped."""
    import submitit

    try:
        jobs = executor.map_array(function, *arguments)
    except (RuntimeError, submitit.core.utils.FailedJobError, OSError) as error:
        raise UserError(
            f"Slurm did not take the runs ({' '.join(str(error).split())}): check --slurm."
        ) from error
    array = jobs[0].job_id.split("_")[0]
    print(f"Submitted as {array}, output in {executor.folder}.", file=sys.stderr)
    try:
        yield jobs
    except (KeyboardInterrupt, SystemExit):
        print(f"core-tuning: the jobs go on without this; 'scancel {array}' ends them.",
              file=sys.stderr)  # fmt: skip
        raise


def make_executor(output: Path, name: str, place: Place) -> Any:
    """Return submitit's executor for a sweep.

    Args:
        output: folder for what the jobs print.
        name: of the sweep.
        place: with the parameters.

    Raises:
        UserError: Slurm is missing here, or a parameter is wrong.
    """
    import submitit

    parameters = dict(place.slurm)
    cluster = parameters.pop(CLUSTER, "slurm")
    if cluster not in CLUSTERS:
        raise UserError(f"--slurm {CLUSTER} is '{cluster}': expected one of {', '.join(CLUSTERS)}.")
    try:
        executor = submitit.AutoExecutor(output, cluster=cluster, slurm_max_num_timeout=TIMEOUTS)
    except RuntimeError as error:
        raise UserError(
            "The launcher needs Slurm, and there is no srun here: start it where sbatch is, or "
            f"try it with --slurm {CLUSTER}=local."
        ) from error
    if cluster == "slurm":
        executor.update_parameters(**sbatch_parameters(parameters, name, place.workers))
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
        UserError: a number is none, or a key looks like another's typo.
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


def _wait(watch: Watch, jobs: dict[str, Any]) -> None:
    while watch.pending:
        watch.look()
        for id in list(watch.pending):
            # Jobs are looked at first: a run may end between the two looks.
            if jobs[id].done():
                watch.look([id])
                if id in watch.pending and not watch.folder.is_running(id):
                    watch.give_up(id, f"Slurm ended its job, see {jobs[id].paths.stderr}")
        if watch.pending:
            time.sleep(POLL_SECONDS)
