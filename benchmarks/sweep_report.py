"""How long `core-tuning sweep report` takes on 10,000 finished runs, without page and figures.

python benchmarks/sweep_report.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from finished_sweep import make_sweep, time_command

from core_tuning.sweeps.folder import open_sweep
from core_tuning.sweeps.reporting.collect import read_report

LIMIT_SECONDS = 10.0


def read(path: Path) -> int:
    """Collect and aggregate; return the number of finished runs."""
    report = read_report(open_sweep(path), "benchmark")
    return sum(part.values["id"].nunique() for part in report.parts)


def main() -> int:
    """Print the times; return 1 if the command takes longer than ten seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--evaluations", type=int, default=4,
                        help="lines of the results.jsonl of a run of dg")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = make_sweep(Path(place) / "sweep", options.runs, options.evaluations).path
        seconds = time_command(
            ["report", "emoji", "--no-page"], path, read, options.runs, options.repeats
        )
    return int(seconds > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
