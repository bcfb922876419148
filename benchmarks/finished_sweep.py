"""A sweep's folder as many finished runs leave it, for the scripts beside this file."""

from __future__ import annotations

import itertools
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from core_tuning.sweeps.claims import read_eps
from core_tuning.sweeps.definition import Run, load_sweep
from core_tuning.sweeps.folder import SweepFolder, start_sweep
from core_tuning.sweeps.reporting.results import budgets_of, options_of

# Of a finished robustness evaluation, images whose indices it states.
_ATTACKED_IMAGES = 821


def make_sweep(path: Path, count: int, evaluations: int = 4) -> SweepFolder:
    """Make a folder of `count` finished runs of the sweep `emoji`, with as many seeds as it takes.

    Args:
        path: of the folder.
        count: of runs.
        evaluations: lines of the results.jsonl of each leave-one-domain-out run.
    """
    each = len(load_sweep("emoji", seeds=[0]).runs)
    sweep = load_sweep("emoji", seeds=list(range(count // each + 1)))
    folder = start_sweep(path, sweep._replace(runs=sweep.runs[:count]))
    generator = random.Random(0)
    for id, run in folder.runs.items():
        done = folder.run_path(id) / run.done
        done.parent.mkdir(parents=True)
        if run.steps[0][0] == "dg":
            lines = [_record(run, step, generator) for step in range(evaluations)]
            (done.parent / "results.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
            done.write_text("done")
        else:
            contents = _result(run, generator) if len(run.steps) == 1 else _report(run, generator)
            done.write_text(json.dumps(contents, indent=2))
        folder.lock_path(id).write_text("{}")
        folder.log_path(id).write_text("")
        progress = {"attempts": 1, "seconds": 60.0, "steps": 1}
        folder.progress_path(id).write_text(json.dumps(progress))
    return folder


def time_command(
    words: Sequence[str], path: Path, read: Callable[[Path], int], runs: int, repeats: int
) -> float:
    """Print how long `core-tuning sweep WORDS` takes on a sweep, and how much of it is reading.

    Args:
        words: of the command; the sweep's folder is added.
        path: of the sweep's folder.
        read: reads it as the command does, and returns the number of finished runs.
        runs: as many there are.
        repeats: of both, in turn.

    Returns:
        The median of the command, in seconds.
    """
    command = [sys.executable, "-m", "core_tuning", "sweep", *words, "--output", str(path)]
    reading, answering = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        assert read(path) == runs
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        answering.append(time.perf_counter() - started)
    for name, times in (("reading", reading), (f"core-tuning sweep {words[0]}", answering)):
        print(
            f"{name} on {runs} finished runs: median {statistics.median(times):.2f} s, "
            f"{min(times):.2f} to {max(times):.2f} s in {repeats} repeats"
        )
    return statistics.median(answering)


def _result(run: Run, generator: random.Random) -> dict[str, Any]:
    measured = {"mean_per_class": 57.7, "loss": 1.04, "images": 821}
    return {
        "dataset": "emoji_domains", "split": "all domains", "method": run.cell["row"],
        "seed": run.seed, "validation": {"top1": generator.uniform(55, 75), **measured},
        "test": {"top1": generator.uniform(55, 75), **measured}, "seconds": 35.9,
    }  # fmt: skip


def _record(run: Run, step: int, generator: random.Random) -> dict[str, Any]:
    options = options_of(run, 0)
    names = itertools.product(range(4), ("in", "out"))
    accuracies = {f"env{number}_{part}_acc": generator.random() for number, part in names}
    (target,) = options["test_envs"]
    (hparams,) = options["hparams"]
    args = {
        "algorithm": run.cell["row"], "checkpoint_freq": 200, "data_dir": None,
        "dataset": "EmojiDomains", "hparams": hparams, "hparams_seed": 0, "output_dir": run.id,
        "seed": run.seed, "steps": 600, "test_envs": [int(target)], "trial_seed": run.seed,
    }  # fmt: skip
    return {"step": step, "epoch": 1.5, "loss": 1.1, **accuracies, "step_time": 0.05,
            "mem_gb": 0.0, "hparams": json.loads(hparams), "args": args}  # fmt: skip


def _report(run: Run, generator: random.Random) -> dict[str, Any]:
    rows = [
        {"attack": attack, "title": attack, "norm": norm, "eps": read_eps(eps), "eps_text": eps,
         "correct": 400, "n": _ATTACKED_IMAGES, "robust": generator.uniform(0, 60),
         "notes": [], "warnings": [], "versions": {"torch": "2.15.0"}}
        for norm, eps in budgets_of(run)
        for attack in options_of(run, -1)["attacks"]
    ]  # fmt: skip
    return {
        "data": {"dataset": "emoji_domains", "indices": list(range(_ATTACKED_IMAGES))},
        "clean": {"correct": 500, "n": _ATTACKED_IMAGES, "percent": generator.uniform(50, 70)},
        "rows": rows,
        "masking": [],
    }
