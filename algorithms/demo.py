"""`core-tuning demo`: CE, CE-Con and Core-tuning, each domain of emoji_domains left out in turn."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_tuning.checks import check_options
from core_tuning.errors import UserError
from core_tuning.options import Parser

from .names import EMOJI

if TYPE_CHECKING:
    from .environments import Environments

TITLES = {"CETuning": "CE", "CECon": "CE-Con", "CoreTuning": "Core-tuning"}
# The best of each method on source validation: docs/findings.md.
CHOSEN: dict[str, dict[str, Any]] = {
    "CETuning": {"batch_size": 16, "lr": 1e-3},
    "CECon": {"batch_size": 16, "lr": 1e-3, "eta": 1.0},
    "CoreTuning": {"batch_size": 16, "lr": 1e-3, "eta": 1.0, "alpha": 1.0},
}


def build_parser() -> Parser:
    """Options of `core-tuning demo`."""
    parser = Parser(
        prog="core-tuning demo",
        description="Fine-tune the embedded MoCo-v2 encoder by cross-entropy, CE-Con and "
        "Core-tuning on three of the four domains of emoji_domains, test on the fourth, each in "
        "turn: a table, figures and a report.html. Below 5 minutes on 2 cores; nothing is "
        "downloaded.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S",
                        help="of splits, weights and batches (default: 0 1 2)")  # fmt: skip
    parser.add_argument("--steps", type=int, default=200, help="of each run (default: 200)")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped demo")
    parser.add_argument("--overwrite", action="store_true", help="delete an older demo first")
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    options = build_parser().parse_args(argv)
    _check(options)
    from core_tuning.training import RunFolder

    from .demo_report import FILES
    from .environments import load_environments

    environments = load_environments(EMOJI, None)
    folder = RunFolder(options.output, FILES)
    config = {"seeds": options.seeds, "steps": options.steps, "hyper_parameters": CHOSEN}
    with folder.hold():
        if options.resume and not folder.is_free():
            folder.resume(config)
        else:
            folder.start(config, overwrite=options.overwrite)
        _run(options, environments, argv)
    return 0


def _run(options: argparse.Namespace, environments: Environments, argv: list[str]) -> None:
    from .demo_report import write_report
    from .dg import run_jobs
    from .job import Machine

    jobs = _jobs(options, len(environments.names), environments.image_size)
    print(
        f"{len(options.seeds)} seeds of CE, CE-Con and Core-tuning from the embedded MoCo-v2 "
        f"encoder, each domain of emoji_domains left out in turn, into {options.output}"
    )
    records: list[dict[str, Any]] = []
    # Runs go on where they stand, unless the demo is made again.
    again = options.overwrite
    for run in run_jobs(jobs, environments, Machine(), resume=not again, overwrite=again):
        records += run
    command = " ".join(["core-tuning demo", *argv])
    text = write_report(options.output, records, environments, command)
    print(f"\n{text}\n\n{options.output / 'report.html'} holds the table and the figures")


def _check(options: argparse.Namespace) -> None:
    check_options(options, ("steps", "seeds"))
    if len(set(options.seeds)) < len(options.seeds):
        raise UserError(f"--seeds is {options.seeds}: expected different numbers.")
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite exclude each other: give one of them.")


def _jobs(options: argparse.Namespace, environments: int, image_size: int) -> dict[Path, Any]:
    from .job import Job

    return {
        options.output / f"{algorithm}_target{target}_seed{seed}": Job(
            dataset=EMOJI,
            algorithm=algorithm,
            test_envs=(target,),
            steps=options.steps,
            evaluate_every=max(1, options.steps // 2),
            image_size=image_size,
            hparams=hparams,
            trial_seed=seed,
            seed=seed,
            skip_sources_inside=True,
        )
        for seed in options.seeds
        for target in range(environments)
        for algorithm, hparams in CHOSEN.items()
    }
