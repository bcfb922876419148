"""What would make jobs of a DomainBed sweep fail or hang, seen before any is launched."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core_tuning.errors import UserError

from .hyperparameters import parse_hparams
from .job_checks import (
    check_algorithm_hparams,
    check_algorithm_name,
    check_data,
    check_dataset_name,
    domain_sizes,
    domainbed_module,
    nearest,
)
from .registration import too_small

Job = Mapping[str, Any]
# DomainBed's paper took 45,900.
MOST_JOBS = 1_000_000


def check_launcher(name: str) -> None:
    """Refuse a launcher that DomainBed lacks, or that would wait for ever for a GPU.

    Raises:
        UserError: with the nearest launcher, or the one to use.
    """
    registry = domainbed_module("command_launchers").REGISTRY
    if name not in registry:
        raise UserError(f"DomainBed has no launcher '{name}': {nearest(name, registry)}")
    if name == "multi_gpu" and not _gpus():
        raise UserError(
            "The launcher multi_gpu starts a job for each GPU, and there is none here "
            "(or CUDA_VISIBLE_DEVICES hides it): use --command_launcher local."
        )


def _gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return torch.cuda.device_count()
    return len([gpu for gpu in visible.split(",") if gpu])


def check_names(datasets: Sequence[str], algorithms: Sequence[str]) -> None:
    """Refuse unknown names, for which DomainBed would launch jobs that all die.

    Raises:
        UserError: with the nearest name.
    """
    for dataset in datasets:
        check_dataset_name(dataset)
    for algorithm in algorithms:
        check_algorithm_name(algorithm)


def check_number(args: argparse.Namespace) -> None:
    """Refuse a sweep that is not counted in jobs but in years, whose list would fill the memory.

    Args:
        args: n_trials, n_hparams, n_hparams_from, datasets and algorithms of the sweep.

    Raises:
        UserError: there are more than `MOST_JOBS`, test environments not counted.
    """
    hparams = max(0, args.n_hparams - args.n_hparams_from)
    jobs = args.n_trials * hparams * len(args.datasets) * len(args.algorithms)
    if jobs > MOST_JOBS:
        raise UserError(
            f"The sweep has {jobs:,} jobs and more, with --n_trials {args.n_trials} and "
            f"--n_hparams {args.n_hparams}: expected at most {MOST_JOBS:,}; ask for fewer."
        )


def check_sweep(jobs: Sequence[Job]) -> None:
    """Check data, hyper-parameters, checkpoints and batch sizes of the jobs of a sweep.

    Args:
        jobs: the arguments that each gives to train.

    Raises:
        UserError: a job would fail or hang.
    """
    for dataset, data_dir in {(job["dataset"], job["data_dir"]): None for job in jobs}:
        check_data(dataset, data_dir)
    given = parse_hparams(jobs[0].get("hparams")) if jobs else {}
    for algorithm, dataset in {(job["algorithm"], job["dataset"]): None for job in jobs}:
        check_algorithm_hparams(algorithm, dataset, given)
    for job in jobs:
        check_batch(job, given)


def check_batch(job: Job, given: Mapping[str, Any]) -> None:
    """Refuse a job one of whose domains can never fill a batch.

    Args:
        job: the arguments that it gives to train.
        given: its hyper-parameters that are not drawn.

    Raises:
        UserError: with the domain.
    """
    data_dir = job["data_dir"]
    # Absolute, because sizes are remembered by it.
    sizes = domain_sizes(job["dataset"], data_dir and str(Path(data_dir).absolute()))
    hparams = {**_drawn_hparams(job), **given}
    if sizes is None or hparams["class_balanced"]:
        return
    for index, (domain, images) in enumerate(sizes.items()):
        in_split = images - int(images * job["holdout_fraction"])
        if index not in job["test_envs"] and in_split < hparams["batch_size"]:
            raise UserError(
                f"{job['algorithm']} on {job['dataset']} with hparams_seed {job['hparams_seed']}: "
                + too_small(f"the domain {domain}", in_split, hparams["batch_size"])
            )


def _drawn_hparams(job: Job) -> dict[str, Any]:
    registry = domainbed_module("hparams_registry")
    if job["hparams_seed"] == 0:
        return registry.default_hparams(job["algorithm"], job["dataset"])
    seed = domainbed_module("lib.misc").seed_hash(job["hparams_seed"], job["trial_seed"])
    return registry.random_hparams(job["algorithm"], job["dataset"], seed)
