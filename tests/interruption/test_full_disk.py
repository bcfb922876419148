"""A disk that runs full in the middle of a run: one sentence, nothing half-written, goes on."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from core_tuning.cli import main

COMMANDS = {
    "finetune": (
        "finetune", "--dataset", "folder", "--data-dir", "{base}/data", "--pretrained", "embedded",
        "--transforms", "small", "--image-size", 16, "--batch-size", 16, "--epochs", 2,
        "--workers", 0, "--checkpoint-minutes", 0, "--output", "out",
    ),
    "dg": (
        "dg", "--dataset", "toys", "--data_dir", "{base}", "--image-size", 16, "--steps", 4,
        "--eval-every", 2, "--workers", 0, "--checkpoint-minutes", 0, "--output_dir", "out",
        "--hparams", '{"checkpoint": "embedded", "batch_size": 4}',
    ),
}  # fmt: skip
SMALL_DISK, LARGE_DISK = "5m", "64m"


@pytest.fixture
def line(shelf):
    return lambda name: [str(word).replace("{base}", str(shelf)) for word in COMMANDS[name]]


@pytest.fixture
def whole(kit, line, tmp_path, monkeypatch):
    """What a command leaves where there is room."""

    def get(name):
        (tmp_path / "whole").mkdir()
        monkeypatch.chdir(tmp_path / "whole")
        assert main(line(name)) == 0
        return kit.outcome(tmp_path / "whole" / "out")

    return get


def check_refused(capsys, argv, folder):
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    sentence = error.splitlines()[-1]
    assert re.search(r"error: .*out/.* cannot be written \(No space left on device\)", sentence)
    assert error.count("core-tuning: error: ") == 1
    left = [path.name for path in folder.rglob("*") if path.name.startswith(".")]
    assert set(left) <= {".lock"}


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of a few MB; returns its folder and what gives it more room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted: {mounted.stderr.strip()}")

    def more():
        subprocess.run(["mount", "-o", f"remount,size={LARGE_DISK}", str(folder)], check=True)

    yield folder, more
    os.chdir("/")
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_small_disk(kit, capsys, monkeypatch, line, whole, disk, name):
    expected = whole(name)
    folder, more = disk
    monkeypatch.chdir(folder)
    check_refused(capsys, line(name), folder)
    more()
    assert main([*line(name), "--resume"]) == 0
    assert kit.differing(expected, kit.outcome(folder / "out")) == []


@pytest.mark.parametrize("written", [2, 5, 8])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_write_that_finds_no_room(kit, capsys, monkeypatch, tmp_path, line, whole, name, written):
    """The first files fit, the next does not."""
    expected = whole(name)
    (tmp_path / "full").mkdir()
    monkeypatch.chdir(tmp_path / "full")
    fsync, calls = os.fsync, []

    def refuse(number):
        calls.append(number)
        if len(calls) > written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        check_refused(capsys, line(name), tmp_path / "full")
    assert main([*line(name), "--resume"]) == 0
    assert kit.differing(expected, kit.outcome(tmp_path / "full" / "out")) == []


def test_a_start_that_finds_no_room(kit, capsys, monkeypatch, tmp_path, line):
    """Not even the marker fits: another start is not refused for what is left."""
    monkeypatch.chdir(tmp_path)

    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        check_refused(capsys, line("finetune"), tmp_path)
    assert main(line("finetune")) == 0


def test_a_folder_that_is_removed_while_a_run_works(kit, run, line, tmp_path):
    command = run(tmp_path / "work", [*line("finetune"), "--epochs", 100])
    out = tmp_path / "work" / "out"
    command.wait_until((out / "checkpoint.pt").exists, "a checkpoint")
    out.rename(tmp_path / "elsewhere")
    assert command.wait() == 2
    assert re.search(r"error: .*out/.* cannot be written \(No such file", command.said)
    assert "Traceback" not in command.said
    assert not Path(out).exists()
