"""How long `core-tuning sweep status` takes on 10,000 finished runs.

python benchmarks/sweep_status.py
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

from core_tuning.sweeps.folder import read_state

LIMIT_SECONDS = 1.0


def main() -> int:
    """Print the times; return 1 if the command takes longer than a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    command = [sys.executable, "-m", "core_tuning", "sweep", "status", "emoji", "--output"]
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
