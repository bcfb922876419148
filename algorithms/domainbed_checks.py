"""What would make a DomainBed job or table fail or hang, seen before it starts.

DomainBed's modules are looked up when a check runs, in the checkout that is in use.
"""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from core_tuning.checkpoints.sources import EMBEDDED, RANDOM
from core_tuning.checks import check_range
from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.errors import UserError
from core_tuning.files import require_file
from core_tuning.options import check_name

from .folders import check_domains, count_images, subfolders
from .hyperparameters import (
    ALGORITHMS,
    check_hparams,
    default_hparams,
    parse_hparams,
    require_checkpoint,
)
from .names import DATASETS, DEBUG, EMOJI
from .registration import too_small

Job = Mapping[str, Any]
Record = dict[str, Any]
RESULTS = "results.jsonl"
# Folders inside --data_dir of the data sets that are root/domain/class/images.
FOLDERS = {
    "SVIRO": "sviro",
    **{name: layout.folder for name, layout in DATASETS.items() if name != EMOJI},
}
# What they need of --data_dir: nothing, or a place to download to.
_WITHOUT_DATA = (EMOJI, *DEBUG)
_DOWNLOADED = ("RotatedMNIST", "ColoredMNIST")
_DEBUG_IMAGES = 16
# DomainBed's paper took 45,900.
MOST_JOBS = 1_000_000
# What DomainBed groups records by.
_ARGUMENTS = {
    "dataset": str, "algorithm": str, "test_envs": list, "trial_seed": int, "hparams_seed": int,
}  # fmt: skip


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"domainbed.{name}")


def _environments(dataset: str) -> list[str]:
    return _module("datasets").get_dataset_class(dataset).ENVIRONMENTS


def check_train(options: Namespace) -> None:
    """Check the options of one job.

    Raises:
        UserError: a name is unknown, a number out of range, or the job would fail or hang.
    """
    _check_names([options.dataset], [options.algorithm])
    _check_test_envs(options.dataset, options.test_envs)
    check_range("holdout_fraction", options.holdout_fraction, "--holdout_fraction")
    for name in ("seed", "trial_seed", "hparams_seed"):
        value = getattr(options, name)
        if not 0 <= value < 2**32:  # Of numpy's generator.
            raise UserError(f"--{name} is {value}: expected 0 to {2**32 - 1}.")
    check_jobs([vars(options)])


def check_launcher(name: str) -> None:
    """Refuse a launcher that DomainBed lacks, or that would wait for ever for a GPU.

    Raises:
        UserError: with the nearest launcher, or the one to use.
    """
    check_name(name, _module("command_launchers").REGISTRY, "DomainBed has no launcher")
    if name == "multi_gpu" and not torch.cuda.device_count():
        raise UserError(
            "The launcher multi_gpu starts a job for each GPU, and there is none here "
            "(or CUDA_VISIBLE_DEVICES hides it): use --command_launcher local."
        )


def check_sweep(options: Namespace) -> None:
    """Check a sweep's options before its jobs are listed.

    Raises:
        UserError: a name is unknown, a number out of range, or there are more than `MOST_JOBS`,
            test environments not counted, whose list would fill the memory.
    """
    _check_names(options.dataset_names, options.algorithms)
    check_range("holdout_fraction", options.holdout_fraction, "--holdout_fraction")
    hparams = max(0, options.n_hparams - options.n_hparams_from)
    jobs = options.n_trials * hparams * len(options.dataset_names) * len(options.algorithms)
    if jobs > MOST_JOBS:
        raise UserError(
            f"The sweep has {jobs:,} jobs and more, with --n_trials {options.n_trials} and "
            f"--n_hparams {options.n_hparams}: expected at most {MOST_JOBS:,}; ask for fewer."
        )


def _check_names(datasets: Sequence[str], algorithms: Sequence[str]) -> None:
    """Refuse unknown names, for which DomainBed would launch jobs that all die."""
    for name in datasets:
        if not getattr(vars(_module("datasets")).get(name), "ENVIRONMENTS", None):
            _refuse(name, _module("datasets").DATASETS, "data set")
    for name in algorithms:
        found = vars(_module("algorithms")).get(name)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            _refuse(name, _module("algorithms").ALGORITHMS, "algorithm")


def _refuse(name: str, known: Sequence[str], what: str) -> None:
    check_name(name, [each for each in known if each != name], f"DomainBed has no {what}")


def _check_test_envs(dataset: str, numbers: Sequence[int]) -> None:
    """Refuse test environments that do not exist, with which DomainBed would test nothing."""
    names = _environments(dataset)
    listed = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
    for number in numbers:
        if not 0 <= number < len(names):
            raise UserError(f"{dataset} has no environment {number} to test on: it has {listed}.")
        if numbers.count(number) > 1:
            raise UserError(f"--test_envs names {number} twice: name each environment once.")
    if len(numbers) == len(names):
        raise UserError(
            f"--test_envs names all environments of {dataset}, {listed}: leave one or more to "
            "train on."
        )


def check_jobs(jobs: Sequence[Job]) -> None:
    """Check hyper-parameters, checkpoints, data and batch sizes of jobs with the same --hparams.

    Args:
        jobs: the arguments that each gives to train; their names are known.

    Raises:
        UserError: a job would fail or hang.
    """
    given = parse_hparams(jobs[0].get("hparams")) if jobs else {}
    for algorithm, dataset in {(job["algorithm"], job["dataset"]): None for job in jobs}:
        _check_algorithm_hparams(algorithm, dataset, given)
    for dataset, data_dir in {(job["dataset"], job["data_dir"]): None for job in jobs}:
        _check_data(dataset, data_dir)
    for job in jobs:
        _check_batch(job, given)


def _check_algorithm_hparams(algorithm: str, dataset: str, given: Mapping[str, Any]) -> None:
    """Check the hyper-parameters that are given, and that a checkpoint which they name is there."""
    ours = algorithm in ALGORITHMS
    # Of other algorithms only what is read here: their checkout may have any others.
    read_here = {name: given[name] for name in ("batch_size", "checkpoint") if name in given}
    check_hparams(algorithm, given if ours else read_here)
    default = default_hparams(algorithm, dataset)["checkpoint"] if ours else ""
    checkpoint = given.get("checkpoint", default)
    if ours:
        require_checkpoint(algorithm, checkpoint)
    if checkpoint not in ("", EMBEDDED, RANDOM):
        require_file(Path(checkpoint))


def _check_data(dataset: str, data_dir: str | None) -> None:
    """Check that --data_dir holds a data set, from which DomainBed will read right labels."""
    if dataset in _WITHOUT_DATA:
        return
    if data_dir is None:
        raise UserError(
            f"{dataset} is read from disk: name the folder that holds it by --data_dir."
        )
    if dataset in _DOWNLOADED:
        return
    if not Path(data_dir).is_dir():
        raise UserError(
            f"--data_dir is {data_dir}, which is not a folder: name the one with {dataset}."
        )
    if dataset not in FOLDERS:
        return
    folder = Path(data_dir, FOLDERS[dataset])
    if not folder.is_dir():
        raise UserError(
            f"--data_dir {data_dir} holds no {FOLDERS[dataset]}/: put {dataset} there as "
            f"{FOLDERS[dataset]}/DOMAIN/CLASS/IMAGES, or name another folder."
        )
    check_domains(folder, len(_environments(dataset)))


def _check_batch(job: Job, given: Mapping[str, Any]) -> None:
    """Refuse a job one of whose domains can never fill a batch."""
    data_dir = job["data_dir"]
    # Absolute, because sizes are remembered by it.
    sizes = _domain_sizes(job["dataset"], data_dir and str(Path(data_dir).absolute()))
    hparams = {**_drawn_hparams(job), **given}
    if not sizes or hparams["class_balanced"]:
        return
    for index, (domain, images) in enumerate(sizes.items()):
        in_split = images - int(images * job["holdout_fraction"])
        if index not in job["test_envs"] and in_split < hparams["batch_size"]:
            raise UserError(
                f"{job['algorithm']} on {job['dataset']} with hparams_seed {job['hparams_seed']}: "
                + too_small(f"the domain {domain}", in_split, hparams["batch_size"])
            )


def _drawn_hparams(job: Job) -> dict[str, Any]:
    registry = _module("hparams_registry")
    if job["hparams_seed"] == 0:
        return registry.default_hparams(job["algorithm"], job["dataset"])
    seed = _module("lib.misc").seed_hash(job["hparams_seed"], job["trial_seed"])
    return registry.random_hparams(job["algorithm"], job["dataset"], seed)


@cache
def _domain_sizes(dataset: str, data_dir: str | None) -> dict[str, int]:
    """Count the images of each domain, in DomainBed's order; none where they are not in folders."""
    if dataset in DEBUG:
        return dict.fromkeys(_environments(dataset), _DEBUG_IMAGES)
    if dataset != EMOJI and dataset not in FOLDERS:
        return {}
    root = emoji_domains_folder() if dataset == EMOJI else Path(str(data_dir), FOLDERS[dataset])
    return {domain.name: count_images(domain) for domain in subfolders(root)}


def check_results(options: Namespace) -> None:
    """Check the runs that collect_results or list_top_hparams will read.

    DomainBed ends in a traceback at the first line of a results.jsonl that it cannot read.

    Args:
        options: `input_dir`, and `auto_lr` of the first or `dataset`, `algorithm` and `test_env`
            of the second.

    Raises:
        UserError: there are none, a line is damaged, or the script could make nothing of them.
    """
    folder = Path(options.input_dir)
    if not folder.is_dir():
        raise UserError(
            f"--input_dir is {folder}, which is not a folder: name the --output_dir of a sweep."
        )
    prefix = "fd_" if getattr(options, "auto_lr", False) else ""
    records = [
        record
        for file in sorted(folder.glob(f"*/{RESULTS}"))
        for record in _read_run(file, f"{prefix}env{{}}_in_acc")
    ]
    if not records:
        raise UserError(
            f"No folder in {folder} has a line in its {RESULTS}: name the --output_dir of a sweep "
            "of which a job has been evaluated."
        )
    if hasattr(options, "test_env"):
        _check_listed(records, options)
    else:
        _check_datasets(records, folder)


def _read_run(file: Path, test_accuracy: str) -> list[Record]:
    require_file(file)
    # DomainBed takes the last character of each line for its end; without it the last one is cut.
    *lines, rest = file.read_bytes().split(b"\n")
    records: list[Record] = []
    for number, line in enumerate([*lines, b""] if rest else lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not _is_whole(record, test_accuracy):
            raise UserError(
                f"Line {number} of {file} is cut or is not a result of DomainBed's: delete the "
                "line, or the folder and launch its job again."
            )
        records.append(record)
    return records


def _is_whole(record: Any, test_accuracy: str) -> bool:
    try:
        arguments = record["args"]
        targets = arguments["test_envs"]
        numbers = ["step", *(name.format(target) for target in targets
                             for name in (test_accuracy, "env{}_out_acc"))]  # fmt: skip
        return (
            isinstance(record["hparams"], dict)
            and all(isinstance(arguments[name], kind) for name, kind in _ARGUMENTS.items())
            and len(targets) > 0
            and all(isinstance(target, int) for target in targets)
            and all(isinstance(record[name], int | float) for name in numbers)
        )
    except (KeyError, TypeError, IndexError):
        return False


def _check_datasets(records: Sequence[Record], folder: Path) -> None:
    known = _module("datasets").DATASETS
    unknown = sorted({record["args"]["dataset"] for record in records} - set(known))
    if not unknown:
        return
    said = (
        f"{folder} holds runs of {', '.join(unknown)}, which DomainBed does not know and has no "
        "table for: 'core-tuning dg' prints its own, again with --resume"
    )
    if all(record["args"]["dataset"] in unknown for record in records):
        raise UserError(f"{said}.")
    print(f"core-tuning: warning: {said}; here are the others.", file=sys.stderr)


def _check_listed(records: Sequence[Record], options: Namespace) -> None:
    folder, dataset, algorithm = options.input_dir, options.dataset, options.algorithm
    chosen = [
        record
        for record in records
        if (record["args"]["dataset"], record["args"]["algorithm"]) == (dataset, algorithm)
        and options.test_env in map(str, record["args"]["test_envs"])
    ]
    if not chosen:
        kinds = {(record["args"]["algorithm"], record["args"]["dataset"]) for record in records}
        raise UserError(
            f"{folder} has no run of {algorithm} on {dataset} with --test_env {options.test_env}: "
            f"it has {', '.join(' on '.join(kind) for kind in sorted(kinds))}, some perhaps with "
            "other test environments."
        )
    hparams: dict[tuple[int, int], Record] = {}
    for record in chosen:
        seeds = record["args"]["trial_seed"], record["args"]["hparams_seed"]
        if hparams.setdefault(seeds, record["hparams"]) != record["hparams"]:
            raise UserError(
                f"{folder} has runs of {algorithm} on {dataset} whose hyper-parameters differ "
                f"though both have --trial_seed {seeds[0]} and --hparams_seed {seeds[1]}, which "
                "DomainBed cannot list: put them into folders of their own."
            )
