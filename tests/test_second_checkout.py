"""A second checkout runs its own tree, whichever checkout is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
USERS = ("algorithms", "classification", "robustness", "sweeps")


def test_every_subpackage_comes_from_the_same_checkout(tmp_path):
    for name in ("core_tuning", *USERS):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.zip")
        )
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    names = [
        "core_tuning.data",
        "core_tuning.sweeps.expand",
        *(f"core_tuning.{n}" for n in USERS),
    ]
    program = (
        f"import importlib\nfor name in {names}:\n    print(importlib.import_module(name).__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path.parent,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    files = [Path(line) for line in run.stdout.splitlines()]
    assert len(files) == len(names)
    assert all(tmp_path in file.parents for file in files)
