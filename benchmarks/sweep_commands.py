"""How long `core-tuning sweep status` and `sweep report` take on 10,000 finished runs.

    python benchmarks/sweep_commands.py

The runs are those of one of the paper's tables, with as many seeds as it takes, and random
accuracies. The report is made without its page and figures. Returns 1 if `status` takes longer than
a second, or `report` longer than ten.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.folder import start_sweep

LIMIT_SECONDS = {"status": 1.0, "report": 10.0}


def finish_runs(path: Path, name: str, count: int) -> None:
    """Write a folder of `count` finished runs of `finetune`."""
    each = len(load_sweep(name, seeds=[0]).runs)
    sweep = load_sweep(name, seeds=list(range(count // each + 1)))
    folder = start_sweep(path, sweep._replace(runs=sweep.runs[:count]))
    for id, run in folder.runs.items():
        measured = {"top1": random.uniform(55, 75), "mean_per_class": 57.7, "images": 821}
        result = {"validation": measured, "test": measured, "seconds": 35.9, "seed": run.seed}
        done = folder.run_path(id) / run.done
        done.parent.mkdir(parents=True)
        done.write_text(json.dumps(result, indent=2))
        progress = {"attempts": 1, "seconds": 60.0, "stages": 1}
        folder.progress_path(id).write_text(json.dumps(progress))


def main() -> int:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweep", default="table02")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    late = 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "sweep"
        finish_runs(path, options.sweep, options.runs)
        for name, extra in (("status", []), ("report", ["--no-page"])):
            command = [sys.executable, "-m", "core_tuning", "sweep", name, options.sweep, *extra]
            times = []
            for _ in range(options.repeats):
                started = time.perf_counter()
                subprocess.run([*command, "--output", str(path)], check=True, capture_output=True)
                times.append(time.perf_counter() - started)
            median = statistics.median(times)
            late += median > LIMIT_SECONDS[name]
            print(f"{name}: median {median:.2f} s, {min(times):.2f} to {max(times):.2f} s")
    return int(late > 0)


if __name__ == "__main__":
    sys.exit(main())
