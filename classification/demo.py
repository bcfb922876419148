"""`core-tuning demo`: CE, CE-Con and Core-tuning on the embedded data, with a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.parser import Parser

from .options import METHODS, parse

# The best validation accuracy of each method in docs/emoji.md.
CHOSEN: dict[str, dict[str, float]] = {
    "ce": {"lr": 0.1},
    "ce_con": {"lr": 0.1, "eta": 1.0},
    "core_tuning": {"lr": 0.03, "eta": 1.0, "alpha": 1.0},
}


def build_parser() -> Parser:
    """Options of `core-tuning demo`."""
    parser = Parser(
        prog="core-tuning demo",
        description="Fine-tune the embedded MoCo-v2 encoder on the embedded emoji_domains by "
        "cross-entropy, CE-Con and Core-tuning, and compare them on its test set: a table, "
        "figures and a report.html. 4 minutes on 2 cores; nothing is downloaded.",
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
    runs = {method: _run_options(options, method) for method in METHODS}
    from core_tuning.training import RunFolder

    from .demo_report import write_report
    from .run import run, seed_folder

    folder = RunFolder(options.output)
    config = {"seeds": options.seeds, "epochs": options.epochs, "hyper_parameters": CHOSEN}
    if options.resume and not folder.is_free():
        folder.resume(config)
    else:
        folder.start(config, overwrite=options.overwrite)
    print(
        f"{len(options.seeds)} seeds of CE, CE-Con and Core-tuning on emoji_domains, from the "
        f"embedded MoCo-v2 encoder, into {options.output}"
    )
    started = time.monotonic()
    results: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
    total = len(METHODS) * len(options.seeds)
    for number, (seed, method) in enumerate(
        [(seed, method) for seed in options.seeds for method in METHODS], start=1
    ):
        result = run(runs[method], seed, seed_folder(runs[method], seed), quiet=True)
        results[method].append(result)
        left = (time.monotonic() - started) / number * (total - number)
        print(
            f"run {number} of {total}: {METHODS[method]} with seed {seed} has "
            f"{result['test']['top1']:.2f}% on the test set; about {left / 60:.1f} min left"
        )
    command = " ".join(["core-tuning demo", *argv])
    folders = {method: seed_folder(runs[method], options.seeds[0]) for method in METHODS}
    text = write_report(options.output, results, folders, command)
    print(f"\n{text}\n\n{options.output / 'report.html'} holds the table and the figures")
    return 0


def _run_options(options: argparse.Namespace, method: str) -> argparse.Namespace:
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite exclude each other: give one of them.")
    arguments: dict[str, Any] = {
        "method": method,
        "epochs": options.epochs,
        "output": options.output / method,
        # Two cores are busy with the network; a worker would take its turn from it.
        "workers": 0,
        **CHOSEN[method],
    }
    flags = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    # Runs always go on where they stand: the demo's own folder has been checked.
    return parse([*flags, "--resume", "--seeds", *map(str, options.seeds)])
