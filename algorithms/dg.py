"""`core-tuning dg`: leave-one-domain-out training by DomainBed's protocol, without DomainBed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from core_tuning.config import check_places

from .config import DomainGeneralisation

if TYPE_CHECKING:
    from core_tuning.training.run import Built, Planned

    from .environments import Environments
    from .evaluation import Store
    from .protocol import One

SELECTION = "selection.json"
# What a run's folder holds besides what every kind of run has; one that is alone in its output
# folder has the choices of the three rules beside it.
FILES = (
    "results.jsonl", "model.pkl", "best_iid.pkl", "model_step*.pkl", SELECTION, "done"
)  # fmt: skip


def main(options: DomainGeneralisation) -> None:
    """Run the command; torch is imported after the options are checked."""
    check_places(options.data_dir, options.pretrained)
    from core_tuning.training.folder import write_marked
    from core_tuning.training.run import run_all

    from .environments import load_environments
    from .protocol import expand, read_records
    from .tables import selection, tables

    environments = load_environments(
        options.dataset, options.data_dir, options.image_size, scan=options.scan
    )
    assert options.output is not None
    plans = plan_runs(options, expand(options, environments), environments)
    for warning in environments.warnings:
        print(f"warning: {warning}")
    run_all("dg", options.output, plans, options, beside=[SELECTION])
    records = [record for plan in plans for record in read_records(plan.folder.path)]
    print("\n" + tables(records, environments.names))
    write_marked(options.output / SELECTION, selection(records))


def plan_runs(
    options: DomainGeneralisation, runs: Mapping[Path, One], environments: Environments
) -> list[Planned]:
    """Check all runs before the first one starts, and plan them."""
    from core_tuning.data import build_transforms
    from core_tuning.training.folder import RunFolder
    from core_tuning.training.optimisation import check_machine
    from core_tuning.training.run import Planned

    from .environments import check_splits, check_targets
    from .evaluation import Store

    check_machine(options.device, options.precision)
    for one in runs.values():
        check_targets(list(one.targets), environments)
        check_splits(environments, one.targets, options.holdout_fraction, one.options.batch_size)
    transforms = build_transforms("domainbed", environments.image_size)
    # Tried out, a command need not read all images.
    memory = options.memory if options.limit_steps is None else 0.0
    store = Store(environments, transforms, memory=memory, workers=options.workers)
    return [
        Planned(
            "dg",
            RunFolder(path, FILES, last=FILES[-1]),
            one.seed,
            one.asked,
            partial(_build, one, store),
        )
        for path, one in runs.items()
    ]  # fmt: skip


def _build(one: One, store: Store) -> Built:
    from core_tuning.training.build import build_learner
    from core_tuning.training.run import Built

    from .dg_run import train

    environments = store.environments
    learner, initial = build_learner(
        one.options, one.method, one.options.hyperparameters, len(environments.classes),
        environments.image_size, one.seed,
    )  # fmt: skip
    return Built(environments.fingerprint, initial, partial(train, one, store, learner, initial))
