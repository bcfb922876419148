"""`core-tuning dg`: leave-one-domain-out training without DomainBed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_tuning.errors import UserError

from .dg_options import ALL, machine, parse

if TYPE_CHECKING:
    from .environments import Environments
    from .job import Job, Machine

SELECTION = "selection.json"
# Side in pixels up to which augmenting images takes as much of a CPU as training on them does;
# above it, all cores had better train.
SMALL_IMAGES = 96


def main(argv: list[str]) -> int:
    """Run the command."""
    options = parse(argv)
    from core_tuning.training.folder import check_marked, write_marked

    from .environments import load_environments
    from .tables import selection, tables

    environments = load_environments(
        options.dataset, options.data_dir, options.image_size, scan=options.scan
    )
    jobs = expand(options, environments)
    check_folder(options.output_dir, jobs)
    check_marked(options.output_dir / SELECTION)
    on = machine(options)
    check_jobs(jobs, environments, on, resume=options.resume, overwrite=options.overwrite)
    for warning in environments.warnings:
        print(f"warning: {warning}")
    records: list[dict[str, Any]] = []
    for run in run_jobs(jobs, environments, on, resume=options.resume, overwrite=options.overwrite):
        records += run
    print("\n" + tables(records, environments.names))
    write_marked(options.output_dir / SELECTION, selection(records))
    return 0


def run_jobs(
    jobs: Mapping[Path, Job],
    environments: Environments,
    on: Machine,
    *,
    resume: bool,
    overwrite: bool,
) -> Iterator[list[dict[str, Any]]]:
    """Run one job after another, saying how long the rest may take; yield each one's records."""
    from core_tuning.data import build_transforms
    from core_tuning.training.settings import share_cores

    from .dg_run import run_job
    from .evaluation import Store

    if environments.image_size <= SMALL_IMAGES:
        share_cores(on.workers)
    transforms = build_transforms("domainbed", environments.image_size)
    store = Store(environments, transforms, memory=on.memory, workers=on.workers)
    started = time.monotonic()
    for number, (path, job) in enumerate(jobs.items(), start=1):
        left = (time.monotonic() - started) / max(1, number - 1) * (len(jobs) - number + 1)
        eta = f"; about {left / 60:.1f} min left" if number > 1 else ""
        print(f"run {number} of {len(jobs)}: {path}{eta}", flush=True)
        yield run_job(job, on, store, path, resume=resume, overwrite=overwrite)


def expand(options: argparse.Namespace, environments: Environments) -> dict[Path, Job]:
    """The runs that a command line describes, by their folders.

    One run has the output folder for itself, as DomainBed's train.py has; several have folders in
    it, as DomainBed's sweep has.
    """
    from .job import Job

    jobs = {}
    for trial in options.trial_seed:
        for hparams_seed in options.hparams_seed:
            for algorithm in options.algorithm:
                for targets in _targets(options.targets, len(environments.names)):
                    name = "-".join(map(str, targets))
                    name = f"{algorithm}_target{name}_hparams{hparams_seed}_trial{trial}"
                    jobs[options.output_dir / name] = Job(
                        dataset=options.dataset,
                        algorithm=algorithm,
                        test_envs=targets,
                        steps=options.steps,
                        evaluate_every=options.evaluate_every,
                        image_size=environments.image_size,
                        data_dir=options.data_dir,
                        hparams=options.hparams,
                        hparams_seed=hparams_seed,
                        trial_seed=trial,
                        seed=trial if options.seed is None else options.seed,
                        holdout_fraction=options.holdout_fraction,
                        augmented_validation=options.augmented_validation,
                        skip_sources_inside=options.skip_training_splits,
                    )
    if len(jobs) == 1:
        return {options.output_dir: next(iter(jobs.values()))}
    return jobs


def _targets(given: str | list[int], environments: int) -> list[tuple[int, ...]]:
    if not isinstance(given, str):
        return [tuple(given)]
    singles: list[tuple[int, ...]] = [(number,) for number in range(environments)]
    return singles if given == ALL else [*singles, *combinations(range(environments), 2)]


def check_folder(output: Path, jobs: Mapping[Path, Job]) -> None:
    """Raise a UserError where several runs would go into the folder of a single one."""
    if output not in jobs and (output / "config.json").exists():
        raise UserError(
            f"{output} holds a single run, not the folders of the {len(jobs)} that were asked for: "
            "name another with --output_dir."
        )


def check_jobs(
    jobs: Mapping[Path, Job],
    environments: Environments,
    on: Machine,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Raise the UserErrors of all runs before the first one starts."""
    from core_tuning.training import RunFolder
    from core_tuning.training.settings import check_machine

    from .dg_run import FILES, check_resume
    from .environments import check_splits, check_targets

    check_machine(on.device, on.precision)
    for path, job in jobs.items():
        check_targets(list(job.test_envs), environments)
        batch_size = job.all_hparams()["batch_size"]
        check_splits(environments, job.test_envs, job.holdout_fraction, batch_size)
        folder = RunFolder(path, FILES)
        if not resume:
            folder.check_start(overwrite=overwrite)
        elif not folder.is_free():
            check_resume(folder, job.config(on), environments.fingerprint)
