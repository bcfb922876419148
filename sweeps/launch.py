"""Starts jobs: on this machine, by Slurm, by Ray.

A launcher takes jobs and yields the id of each that has ended with its exit code, or a sentence
where it has none. What became of a run stands in the sweep's folder, so that a launcher that is
killed leaves nothing to mend.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from core_tuning.commands import named
from core_tuning.cores import available_cores
from core_tuning.errors import UserError
from core_tuning.stopping import die_with_parent

# Exit codes of a run's process, see `job`: another process holds the run, or it was told to end.
HELD, INTERRUPTED = 4, 143
# Its process was killed or told to end: it goes on so often.
RESTARTS = 2
# A run that is told to end saves first.
GRACE_SECONDS = 20.0
POLL_SECONDS = 0.05
# Between looks at runs that another sweep is making.
HELD_SECONDS = 2.0
Ended = Generator[tuple[str, "int | str"]]


class Job(NamedTuple):
    """A Python module to be run as a process, here or on another machine.

    Attributes:
        id: of the job.
        module: that is run, as by `python -m`.
        arguments: of the module.
        log: file that what it prints is added to; None prints where the launcher does.
        folder: to run it in; "" is the launcher's.
        environment: variables to set besides those of where it runs.
        resumes: whether it goes on where it was if it is started again.
    """

    id: str
    module: str
    arguments: tuple[str, ...]
    log: str | None = None
    folder: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    resumes: bool = False


@dataclass(frozen=True)
class Place:
    """Where and how many jobs at the same time.

    Attributes:
        workers: jobs at the same time; None for one a GPU, or one without a GPU (on a cluster: as
            many as it takes).
        slurm: parameters of sbatch.
        ray_address: of a cluster to join; None starts Ray on this machine.
        name: of Slurm's job array.
        output: folder of what Slurm's jobs print.
    """

    workers: int | None = None
    slurm: dict[str, str] = field(default_factory=dict)
    ray_address: str | None = None
    name: str = ""
    output: str = "slurm"


def start(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a job as a process that ends when this thread's process is gone.

    Args:
        job: to start.
        environment: variables to set besides this process's and the job's.
    """
    with ExitStack() as stack:
        log = stack.enter_context(Path(job.log).open("ab")) if job.log else None
        return subprocess.Popen(
            [sys.executable, "-m", job.module, *job.arguments],
            cwd=job.folder or None,
            env={**os.environ, **dict(job.environment), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # A terminal's Ctrl-C is for the sweep, which then ends its jobs.
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )


def run_and_wait(job: Job) -> int:
    """`start` and wait for it: what the processes of Slurm and Ray call."""
    process = start(job, {})
    try:
        return process.wait()
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: it led a session; by force after a while."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    # What it leaves behind, such as loaders of data, would hold the run's lock.
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], kind: int) -> None:
    try:
        os.killpg(process.pid, kind)
    except ProcessLookupError:
        return  # Nobody is left.


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that `finally` clauses end the children."""

    def leave(number: int, frame: FrameType | None) -> None:
        # Once: another must not interrupt the ending of the children.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def launch_local(jobs: Sequence[Job], place: Place, is_held: Callable[[str], bool]) -> Ended:
    """Run jobs on this machine; however this ends, they end before it.

    Args:
        jobs: to run.
        place: how many at the same time.
        is_held: whether another process is making a job, by its id: it is waited for, and the job
            started then, as its maker may have been killed.
    """
    shares = deque(local_shares(place.workers, visible_gpus()))
    waiting, held = deque(jobs), deque[Job]()
    working: list[tuple[Job, subprocess.Popen[bytes], dict[str, str]]] = []
    restarts = Counter[str]()
    next_look = 0.0
    try:
        while waiting or held or working:
            if held and time.monotonic() >= next_look:
                waiting.extend(held)
                held.clear()
                next_look = time.monotonic() + HELD_SECONDS
            while waiting and shares:
                job = waiting.popleft()
                if is_held(job.id):
                    held.append(job)
                    continue
                share = shares.popleft()
                working.append((job, start(job, share), share))
            for each in [each for each in working if each[1].poll() is not None]:
                working.remove(each)
                job, process, share = each
                shares.append(share)
                code = process.returncode
                stopped = job.resumes and (code < 0 or code == INTERRUPTED)
                if job.resumes and code == HELD:
                    held.append(job)
                elif stopped and restarts[job.id] < RESTARTS:
                    restarts[job.id] += 1
                    waiting.append(job)
                else:
                    yield job.id, code
            time.sleep(POLL_SECONDS)
    finally:
        # All are asked first, so that they end at the same time.
        for _, process, _ in working:
            process.terminate()
        for _, process, _ in working:
            end(process)


def visible_gpus() -> list[str]:
    """Names of the GPUs that a process may use, as CUDA_VISIBLE_DEVICES takes them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    # Not by torch, which takes seconds to import and a context on each GPU.
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return [str(index) for index in range(count)]


def local_shares(
    workers: int | None, gpus: Sequence[str], cores: int | None = None
) -> list[dict[str, str]]:
    """Environment of each worker: GPUs are dealt out in turn, cores divided.

    Args:
        workers: jobs at the same time; None for one a GPU, or one without a GPU.
        gpus: their names; none leaves CUDA_VISIBLE_DEVICES as it is.
        cores: of the CPU, to share among the workers; this machine's by default.
    """
    workers = workers or len(gpus) or 1
    # A user who sets the threads of a run means it.
    threads = os.environ.get("OMP_NUM_THREADS")
    threads = threads or str(max(1, (cores or available_cores()) // workers))
    environments = []
    for index in range(workers):
        environment = {"OMP_NUM_THREADS": threads}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        environments.append(environment)
    return environments


# Name -> the function that launches, and the package that it needs.
LAUNCHERS = {
    "local": ("core_tuning.sweeps.launch:launch_local", None),
    "slurm": ("core_tuning.sweeps.launch_cluster:launch_slurm", "submitit"),
    "ray": ("core_tuning.sweeps.launch_cluster:launch_ray", "ray"),
}


def launch(name: str, jobs: Sequence[Job], place: Place, is_held: Callable[[str], bool]) -> Ended:
    """Run jobs by the launcher of a name, a key of `LAUNCHERS`; see `launch_local`.

    Raises:
        UserError: no cluster takes the jobs, or a parameter is wrong.
    """
    function, _ = LAUNCHERS[name]
    ended: Ended = named(function)(jobs, place, is_held)
    return ended


def check_installed(name: str) -> None:
    """Raise UserError if the package that a launcher needs is missing."""
    _, needs = LAUNCHERS[name]
    if needs is not None and importlib.util.find_spec(needs) is None:
        raise UserError(
            f"The launcher is '{name}', and {needs} is not installed: "
            "pip install 'core-tuning[sweeps]'."
        )
