"""Wall clock of `core-tuning dg` beside DomainBed's train.py, for the same job, and where it went.

    core-tuning domainbed install
    python benchmarks/leave_one_domain_out.py

Both train the same algorithm on the same images for the same steps and evaluate the same splits
equally often; DomainBed's train.py is run by `core-tuning domainbed train`, which adds our names
to it. Runs alternate. A run of one step measures start-up with one evaluation, results.jsonl tells
the training steps, and the rest is the other evaluations.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from measure import print_table

COMMAND = (sys.executable, "-m", "core_tuning")


class Run(NamedTuple):
    """Seconds of a run: all of it, and its training steps; and its last accuracies."""

    total: float
    training: float
    accuracies: dict[str, float]


def measure(arguments: list[str], job: list[str], steps: int) -> Run:
    """Run a job in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "run")
        command = [*COMMAND, *arguments, *job, "--steps", str(steps), "--output_dir", str(output)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        total = time.perf_counter() - started
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed: {done.stderr.strip().splitlines()[-1]}")
        lines = (output / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    ends = [-1, *(record["step"] for record in records)]
    training = sum(
        record["step_time"] * (end - start)
        for record, (start, end) in zip(records, pairwise(ends), strict=True)
    )
    return Run(total, training, {k: v for k, v in records[-1].items() if k.endswith("_acc")})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="EmojiDomains")
    parser.add_argument("--data_dir", default=".")
    parser.add_argument("--algorithm", default="CoreTuning")
    parser.add_argument("--test_env", type=int, default=0)
    parser.add_argument("--steps", type=int, default=601)
    parser.add_argument("--hparams", default="{}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--domainbed-workers", type=int, nargs="+", default=[8, 1],
                        help="of each of its data loaders; its data sets start 8")  # fmt: skip
    args = parser.parse_args()
    job = ["--dataset", args.dataset, "--data_dir", args.data_dir, "--algorithm", args.algorithm]
    job += ["--test_envs", str(args.test_env), "--hparams", args.hparams]
    sides = {"core-tuning dg": ["dg"]}
    for workers in args.domainbed_workers:
        sides[f"DomainBed, {workers} workers"] = ["domainbed", "train", "--workers", str(workers)]
    print(f"{args.algorithm} on {args.dataset}, {args.steps} steps, {os.cpu_count()} cores")
    start_up = {name: measure(side, job, 1).total for name, side in sides.items()}
    runs: dict[str, list[Run]] = {name: [] for name in sides}
    for _ in range(args.repeats):
        for name, side in sides.items():
            runs[name].append(measure(side, job, args.steps))
    report(runs, start_up)


def report(runs: dict[str, list[Run]], start_up: dict[str, float]) -> None:
    """Print seconds, ratios of each repeat, and the accuracies that came out."""
    ours = next(iter(runs.values()))
    rows = []
    for name, repeats in runs.items():
        total = statistics.median(run.total for run in repeats)
        training = statistics.median(run.training for run in repeats)
        rest = max(0.0, total - training - start_up[name])
        ratios = [run.total / own.total for run, own in zip(repeats, ours, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        accuracies = sorted(repeats[0].accuracies.items())
        last = ", ".join(f"{key} {100 * value:.1f}" for key, value in accuracies)
        rows.append((name, total, start_up[name], training, rest, spread, last))
    header = ("", "total s", "start-up", "training", "evaluation", "/ ours", "last accuracies")
    print_table("", header, rows)


if __name__ == "__main__":
    main()
