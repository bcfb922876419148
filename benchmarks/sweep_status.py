"""How long `core-tuning sweep status` takes on 10,000 finished runs.

python benchmarks/sweep_status.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from finished_sweep import make_sweep, time_command

from core_tuning.sweeps.folder import read_state

LIMIT_SECONDS = 1.0


def read(path: Path) -> int:
    """Return the number of finished runs."""
    return len(read_state(path).done)


def main() -> int:
    """Print the times; return 1 if the command takes longer than a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        path = make_sweep(Path(place) / "sweep", options.runs).path
        seconds = time_command(["status", "emoji"], path, read, options.runs, options.repeats)
    return int(seconds > LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
