"""Processes: one smoke test a command, and outputs that are closed, full, or take no "±"."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning.files import csv_bytes

SMALL = (
    "--dataset folder --data-dir data --pretrained embedded --transforms small --image-size 16 "
    "--batch-size 8 --epochs 1 --workers 0 --limit-steps 1 --method ce"
)
SMOKE = {
    "--frobnicate": "'--frobnicate'",
    "demo --steps 0": "--steps is 0",
    "finetune --eta nan": "eta is nan",
    "evaluate gone": "gone does not exist",
    "robust train --eps nan": "eps is nan",
    "robust evaluate gone": "'gone' does not exist",
    "dg --test_envs x": "--test-envs is 'x'",
    "domainbed doctor --data_dir gone": "gone",
    "sweep list x": "unrecognized arguments: x",
    "sweep run gone": "no sweep 'gone'",
    "sweep status gone": "runs/sweep-gone",
    "sweep retry gone": "runs/sweep-gone",
    "sweep report gone": "no sweep 'gone'",
    "inspect gone": "gone",
}


@pytest.mark.parametrize("line", SMOKE)
def test_a_process_that_refuses(room, process, line):
    ended = process(line)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("core-tuning: error: ")
    assert ended.stderr.count("\n") == 1
    assert SMOKE[line] in ended.stderr
    assert list(room.path.iterdir()) == []


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    line = line.replace("core-tuning", f"{sys.executable} -m core_tuning")
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, timeout=120,
        env={**os.environ, **variables}, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", ["", "finetune", "dg", "robust evaluate", "sweep run"])
def test_a_closed_output(room, command):
    ended = shell(f"core-tuning {command} --help >&-")
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr
    assert ended.returncode in (0, 2)


@pytest.mark.parametrize("command", ["finetune --help", "sweep list"])
def test_a_full_output(room, command):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    ended = shell(f"core-tuning {command} > /dev/full")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "the output cannot be used: No space left on device." in ended.stderr


def test_a_reader_that_has_seen_enough(room):
    ended = shell("(core-tuning finetune --help; sleep 0.1) | head -1")
    assert ended.stdout == "usage: core-tuning finetune [options]\n"
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_an_output_of_ascii_loses_no_summary(room):
    """The mean's "±" is shown in some way, and written in any case."""
    room.bring("data")
    ended = shell(
        f"core-tuning finetune {SMALL} --seeds 0 1 --output out",
        PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (room.path / "out" / "summary.json").exists()
    assert r"\xb1" in ended.stdout


def test_tables_of_classes_that_look_like_formulas(room):
    """A spreadsheet runs what begins so, and an attacker may name a folder."""
    room.bring("data")
    for split in ("train", "val"):
        (room.path / "data" / split / "ant").rename(room.path / "data" / split / "=1+1")
        (room.path / "data" / split / "bee").rename(room.path / "data" / split / "@bee")
    assert room.run(f"finetune {SMALL} --output out") == 0
    rows = (room.path / "out" / "confusion.csv").read_text().splitlines()
    assert rows[0] == "true \\ predicted,'=1+1,'@bee"
    assert [row.split(",")[0] for row in rows[1:]] == ["'=1+1", "'@bee"]
    assert csv_bytes([["-a", "+b", -1]]) == b"'-a,'+b,-1\n"
