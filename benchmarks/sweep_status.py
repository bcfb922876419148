"""How long `core-tuning sweep status` takes on 10,000 finished runs.

python benchmarks/sweep_status.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from core_tuning.sweeps.definition import Run, Sweep
from core_tuning.sweeps.folder import SweepFolder, read_state, start_sweep

LIMIT_SECONDS = 1.0


def make_sweep(path: Path, count: int) -> SweepFolder:
    """A sweep's folder as `count` finished runs leave it."""
    runs = tuple(
        Run(
            id=f"{index:012x}",
            title=f"Core-tuning, dtd, seed {index}",
            cell={"part": "main", "row": "Core-tuning", "dataset": "dtd"},
            seed=index,
            steps=(("finetune", "--seeds", str(index), "--output", "{folder}", "--resume"),),
            done="result.json",
            forwards=None,
        )
        for index in range(count)
    )
    folder = start_sweep(path, Sweep("benchmark", "Benchmark", None, runs, ""))
    for id in folder.runs:
        folder.run_path(id).mkdir()
        (folder.run_path(id) / "result.json").write_text("{}")
        folder.lock_path(id).write_text("{}")
        folder.log_path(id).write_text("")
        progress = {"attempts": 1, "seconds": 60.0, "steps": 1}
        folder.progress_path(id).write_text(json.dumps(progress))
    return folder


def main() -> int:
    """Print the times; return 1 if the command takes longer than a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    command = [sys.executable, "-m", "core_tuning", "sweep", "status", "benchmark", "--output"]
    reading, answering = [], []
    with tempfile.TemporaryDirectory() as place:
        path = make_sweep(Path(place) / "sweep", options.runs).path
        for _ in range(options.repeats):
            started = time.perf_counter()
            assert len(read_state(path).done) == options.runs
            reading.append(time.perf_counter() - started)
            started = time.perf_counter()
            subprocess.run([*command, str(path)], check=True, stdout=subprocess.DEVNULL)
            answering.append(time.perf_counter() - started)
    for name, times in (("read_state", reading), ("core-tuning sweep status", answering)):
        print(
            f"{name} on {options.runs} finished runs: median {statistics.median(times):.2f} s, "
            f"{min(times):.2f} to {max(times):.2f} s in {options.repeats} repeats"
        )
    return int(statistics.median(answering) > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
