"""How long `core-tuning sweep report` takes on 10,000 finished runs, without page and figures.

python benchmarks/sweep_report.py
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finished_sweep import make_sweep

from core_tuning.sweeps.folder import open_sweep
from core_tuning.sweeps.reporting.results import read_report

LIMIT_SECONDS = 10.0


def main() -> int:
    """Print the times; return 1 if the command takes longer than ten seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--evaluations", type=int, default=4,
                        help="lines of the results.jsonl of a run of dg")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    command = [sys.executable, "-m", "core_tuning", "sweep", "report", "emoji", "--no-page"]
    reading, answering = [], []
    with tempfile.TemporaryDirectory() as place:
        path = make_sweep(Path(place) / "sweep", options.runs, options.evaluations).path
        for _ in range(options.repeats):
            started = time.perf_counter()
            report = read_report(open_sweep(path), "benchmark")
            reading.append(time.perf_counter() - started)
            assert sum(part.values["id"].nunique() for part in report.parts) == options.runs
            started = time.perf_counter()
            subprocess.run([*command, "--output", path], check=True, stdout=subprocess.DEVNULL)
            answering.append(time.perf_counter() - started)
    for name, times in (("read_report", reading), ("core-tuning sweep report", answering)):
        print(
            f"{name} on {options.runs} finished runs: median {statistics.median(times):.2f} s, "
            f"{min(times):.2f} to {max(times):.2f} s in {options.repeats} repeats"
        )
    return int(statistics.median(answering) > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
