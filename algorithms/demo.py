"""`core-tuning demo`: CE, CE-Con and Core-tuning, each domain of emoji_domains left out in turn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import Demo, DomainGeneralisation

if TYPE_CHECKING:
    from core_tuning.training.run import Planned

    from .environments import Environments
    from .protocol import One

# The best of each method on source validation: docs/findings.md.
CHOSEN: dict[str, dict[str, Any]] = {
    "ce": {"batch_size": 16, "lr": 1e-3},
    "ce_con": {"batch_size": 16, "lr": 1e-3, "eta": 1.0},
    "core_tuning": {"batch_size": 16, "lr": 1e-3, "eta": 1.0, "alpha": 1.0},
}


def main(options: Demo) -> None:
    """Run the command; torch is imported after the options are checked."""
    from core_tuning.training.folder import environment
    from core_tuning.training.run import run_all

    from .demo_report import write_report
    from .environments import load_environments
    from .names import EMOJI
    from .protocol import read_records

    output = options.output
    assert output is not None
    environments = load_environments(EMOJI, None)
    plans = plan(options, environments)
    print(
        f"{len(options.seeds)} seeds of CE, CE-Con and Core-tuning from the embedded MoCo-v2 "
        f"encoder, each domain of emoji_domains left out in turn, into {output}"
    )
    run_all("demo", output, plans, options)
    records = [record for plan in plans for record in read_records(plan.folder.path)]
    text = write_report(output, records, environments, environment()["command"])
    print(f"\n{text}\n\n{output / 'report.html'} holds the table and the figures")


def _options(options: Demo, methods: list[str], hparams: dict[str, Any]) -> DomainGeneralisation:
    """The options of `core-tuning dg` that the demo stands for."""
    made = DomainGeneralisation(
        method=methods,
        hparams=hparams,
        test_envs=["all"],
        seeds=options.seeds,
        steps=options.steps,
        eval_every=options.eval_every or max(1, options.steps // 2),
        skip_training_splits=True,
        output=options.output,
        resume=options.resume,
        overwrite=options.overwrite,
        checkpoint_minutes=options.checkpoint_minutes,
        tensorboard=options.tensorboard,
    )
    made.complete()
    return made


def plan(options: Demo, environments: Environments) -> list[Planned]:
    """Plan the runs: each seed and target by each method, with its hyper-parameters."""
    from .dg import plan_runs
    from .protocol import expand

    runs: dict[Path, One] = {}
    for method, hparams in CHOSEN.items():
        runs |= expand(_options(options, [method], hparams), environments)
    # All methods of a seed and target first: stopped early, they can be compared.
    ordered = dict(sorted(runs.items(), key=lambda run: (run[1].seed, run[1].targets)))
    return plan_runs(_options(options, list(CHOSEN), {}), ordered, environments)
