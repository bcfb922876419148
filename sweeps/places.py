"""Where runs are made, and how a machine is shared among those made at the same time."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

from core_tuning.cores import available_cores
from core_tuning.errors import UserError


@dataclass(frozen=True)
class Place:
    """Where and how many runs at the same time.

    Attributes:
        workers: runs at the same time; None for one a GPU, or one without a GPU (on a cluster: as
            many as it takes).
        slurm: parameters of sbatch.
        ray_address: of a cluster to join; None starts Ray on this machine.
    """

    workers: int | None = None
    slurm: dict[str, str] = field(default_factory=dict)
    ray_address: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers is {self.workers}: expected at least 1.")


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


def shares(workers: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """Environment of each worker: GPUs are dealt out in turn, cores divided.

    Args:
        workers: at least 1.
        gpus: their names; none leaves CUDA_VISIBLE_DEVICES as it is.
        cores: of the CPU, to share among the workers.
    """
    # A user who sets the threads of a run means it.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // workers))
    environments = []
    for index in range(workers):
        environment = {"OMP_NUM_THREADS": threads}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        environments.append(environment)
    return environments


def local_workers(workers: int | None, gpus: Sequence[str]) -> list[dict[str, str]]:
    """`shares` of this machine, for one worker a GPU, or one without a GPU, if None is given."""
    return shares(workers or len(gpus) or 1, gpus, available_cores())
