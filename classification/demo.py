"""`core-tuning demo`: CE, CE-Con and Core-tuning on the embedded data, with a report."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError

from .options import METHODS, Parser, parse

TITLES = {"ce": "CE", "ce_con": "CE-Con", "core_tuning": "Core-tuning"}


def build_parser() -> Parser:
    """Options of `core-tuning demo`."""
    parser = Parser(
        prog="core-tuning demo",
        description="Fine-tune the embedded MoCo-v2 encoder on the embedded emoji_domains by "
        "cross-entropy, CE-Con and Core-tuning, and compare them on its test set: a table, "
        "figures and a report.html. About 4 minutes on 2 cores; nothing is downloaded.",
        allow_abbrev=False,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S")
    parser.add_argument("--epochs", type=int, default=12, help="of each run (default: 12)")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped demo")
    parser.add_argument("--overwrite", action="store_true", help="delete an older demo first")
    return parser


def main(argv: list[str]) -> int:
    """Run the command."""
    options = build_parser().parse_args(argv)
    _prepare(options)
    from .demo_report import write_report
    from .run import run, seed_folder

    started = time.monotonic()
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    total = len(METHODS) * len(options.seeds)
    for number, (seed, method) in enumerate(
        [(seed, method) for seed in options.seeds for method in METHODS], start=1
    ):
        run_options = _run_options(options, method)
        result = run(run_options, seed, seed_folder(run_options, seed))
        results[method].append(result)
        left = (time.monotonic() - started) / number * (total - number)
        print(
            f"run {number} of {total}: {TITLES[method]} with seed {seed} has "
            f"{result['test']['top1']:.2f}% on the test set; about {left / 60:.1f} min left"
        )
    command = " ".join(["core-tuning demo", *argv])
    folders = {
        method: seed_folder(_run_options(options, method), options.seeds[0]) for method in METHODS
    }
    text = write_report(options.output, results, folders, command)
    print(f"\n{text}\n\n{options.output / 'report.html'} holds the table and the figures")
    return 0


def _prepare(options: argparse.Namespace) -> None:
    if options.resume or not options.output.exists() or not any(options.output.iterdir()):
        return
    if not options.overwrite:
        raise UserError(
            f"The folder {options.output} is not empty: go on with --resume, begin anew with "
            "--overwrite, or name another with --output."
        )
    for method in METHODS:
        if (options.output / method).exists():
            shutil.rmtree(options.output / method)


def _run_options(options: argparse.Namespace, method: str) -> argparse.Namespace:
    seeds = [str(seed) for seed in options.seeds]
    arguments = ["--method", method, "--epochs", str(options.epochs), "--seeds", *seeds]
    arguments += ["--output", str(options.output / method)]
    return parse([*arguments, "--resume"] if options.resume else arguments)
