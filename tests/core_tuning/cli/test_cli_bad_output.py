"""Outputs that `finetune` refuses: what is there is left as it was."""

from __future__ import annotations

import os
import re

import pytest

BAD_OUTPUT = {
    "not empty": (lambda place: ["--output", place.full_folder()], "is not empty"),
    "no run to overwrite": (
        lambda place: ["--output", place.full_folder(), "--overwrite"],
        "is not a run's",
    ),
    "no run to resume": (
        lambda place: ["--output", place.full_folder(), "--resume"],
        "run.json",
    ),
    "a file": (lambda place: ["--output", place.file("file")], "is a file"),
    "below a file": (lambda place: ["--output", place.file("file") / "run"], "file"),
    "further below a file": (lambda place: ["--output", place.file("file") / "a" / "b"], "file"),
    "below a file, several seeds": (
        lambda place: ["--output", place.file("file"), "--seeds", 0, 1],
        "file",
    ),
    "several seeds where one is": (
        lambda place: ["--output", place.single_run(), "--seeds", 0, 1],
        "holds a single run",
    ),
}


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
        if "core-tuning-cache" not in file.parts
    }


@pytest.mark.parametrize("name", BAD_OUTPUT)
def test_bad_output(kit, capsys, place, name):
    """What was there is left as it was, and the sentence says where to go on."""
    make, pattern = BAD_OUTPUT[name]
    options = make(place)
    before = contents(place.path)
    sentence = kit.run_bad(capsys, "finetune", "--workers", 0, *options)
    assert re.search(pattern, sentence)
    assert contents(place.path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_no_write_permission(kit, capsys, place):
    locked = place.path / "locked"
    locked.mkdir(mode=0o500)
    sentence = kit.run_bad(capsys, "finetune", "--workers", 0, "--output", locked / "run")
    assert "cannot be written (Permission denied)" in sentence
