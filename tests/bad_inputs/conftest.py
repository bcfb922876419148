"""A room: a working folder with copies of finished runs, to be spoilt and handed to a command.

A row of the tables here names what it uses by the first part of its path ("run/metrics.jsonl"),
and finds a copy of that in its working folder.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core_tuning.cli import main

PREFIX = "core-tuning: error: "
# What a run that gets so far may say before it finds the mistake: its bar, its warnings.
BEFORE = re.compile(r"^(warning: |reading |masking, |step \d+ of |.*\d+%\|)")
# A row that hangs, as on a pipe, must not stop the suite.
MOST_SECONDS = 20
# Nor may one that asks for terabytes take the machine's memory.
MOST_BYTES = 2**31
SMALL = (
    "--dataset folder --data-dir data --pretrained embedded --transforms small --image-size 16 "
    "--batch-size 8 --epochs 1 --workers 0"
)
DG = (
    '--dataset toys --data_dir . --hparams {"checkpoint":"embedded","batch_size":4} '
    "--steps 2 --eval-every 1 --image-size 16 --workers 0"
)
ROBUST = "--l2 0.3 --linf --attacks pgd10 --no-masking-checks --batch-size 8 --workers 0"
DEFINITION = """\
title = "mine"
command = "finetune"
[options]
epochs = 1
[axes]
method = ["ce", "core_tuning"]
"""
# What a sweep runs instead of core-tuning: it leaves the result that its report reads.
FAKE = """\
import json, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
folder.mkdir(parents=True)
result = {"test": {"top1": 50.0}, "validation": {"top1": 50.0}}
(folder / "result.json").write_text(json.dumps(result))
"""
# name -> the command that makes it, in the session's folder.
MAKERS = {
    "run": f"finetune {SMALL} --method ce --output run",
    "robust": f"robust train {SMALL} --method ce --attack-steps 1 --output robust",
    "dg": f"dg {DG} --output_dir dg",
    "evaluation": f"robust evaluate run {ROBUST} --output evaluation",
}
NEEDS = {"run": ["data"], "robust": ["data"], "dg": ["toys"], "evaluation": ["run", "data"]}
NEEDS["gone"] = []


def words(line: str) -> list[str]:
    """Split a command line at spaces: "@run" is the line that made the run, "%0A" a character."""
    line = re.sub(r"@(\w+)", lambda found: MAKERS[found[1]], line)
    return [re.sub(r"%(\w\w)", lambda found: chr(int(found[1], 16)), word) for word in line.split()]


def tree(folder: Path) -> dict[str, object]:
    """Everything below a folder: kind, and contents of ordinary files."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        name = os.fsencode(path.relative_to(folder)).decode(errors="backslashreplace")
        found[name] = path.read_bytes() if stat.S_ISREG(mode) else stat.S_IFMT(mode)
        # The locks of a run's and of a sweep's folder say nothing once they are released.
        if path.name == ".lock" or path.parent.name == "locks":
            del found[name]
    return found


class Room:
    """A test's working folder.

    Args:
        path: of it.
        shelf: makes or finds what rows use, by name.

    Attributes:
        seconds: the most that a command may take.
    """

    def __init__(self, path: Path, shelf: Callable[[str], Path]) -> None:
        self.path = path
        self.shelf = shelf
        self.seconds = MOST_SECONDS

    def bring(self, *names: str) -> None:
        """Copy things and what they need, those that are there already excepted."""
        for name in names:
            self.bring(*NEEDS.get(name, []))
            source, target = self.shelf(name), self.path / name
            if source.is_dir() and not target.exists():
                shutil.copytree(source, target)
            elif source.is_file() and not target.exists():
                shutil.copy(source, target)

    def bring_what_is_named(self, line: str, *paths: str) -> None:
        """Copy what a command line and the paths of its row begin with."""
        named = [re.split(r"[/:]", word)[0] for word in (*words(line), *paths)]
        self.bring(*(name for name in dict.fromkeys(named) if name in SHELF))

    def spoil(self, pattern: str, how: object) -> None:
        """Make files something else: bytes, a JSON object's values, or what `SPOILERS` knows."""
        paths = list(self.path.glob(pattern)) if "*" in pattern else [self.path / pattern]
        assert paths
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(how, dict):
                contents = json.loads(path.read_text()) if path.exists() else {}
                path.write_text(json.dumps({**contents, **how}))
            elif isinstance(how, bytes):
                path.write_bytes(how)
            else:
                SPOILERS[str(how)](path)

    def run(self, line: str) -> int:
        """Run a command line in this process; return its exit code."""
        with guarded(self.seconds):
            return main(words(line))

    def refuse(self, capfd: pytest.CaptureFixture[str], line: str, sentence: str) -> None:
        """Check that a command line ends in one sentence with exit code 2, and changes nothing."""
        before = tree(self.path)
        capfd.readouterr()
        code = self.run(line)
        error = capfd.readouterr().err
        assert "Traceback" not in error
        lines = [each for each in re.split(r"[\r\n]", error) if each.strip()]
        lines = [each for each in lines if not BEFORE.match(each)]
        assert len(lines) == 1, error
        assert lines[0].startswith(PREFIX)
        assert lines[0].endswith((".", "?"))
        assert re.search(sentence, lines[0]), lines[0]
        assert code == 2
        after = tree(self.path)
        assert after.keys() == before.keys()
        assert after == before


def _cut(path: Path) -> None:
    contents = path.read_bytes() if path.exists() else b'{"a": 1}'
    path.write_bytes(contents[: len(contents) // 2])


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return spoil


SPOILERS: dict[str, Callable[[Path], None]] = {
    "cut": _cut,
    "gone": Path.unlink,
    "a pipe": _instead(os.mkfifo),
    "a device": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a folder": _instead(Path.mkdir),
    "a foreign checkpoint": lambda path: torch.save({"state": torch.zeros(2)}, path),
    "a checkpoint of nothing": lambda path: torch.save({"core_tuning_checkpoint": 1}, path),
    "a foreign model": lambda path: save_file({"x": torch.zeros(2)}, path),
    "nested facts": lambda path: _export(path, "[" * 100_000),
    "few facts": lambda path: _export(path, '{"classes": ["ant", "bee"]}'),
}


def _export(path: Path, facts: str) -> None:
    save_file(load_file(path), path, metadata={"core_tuning": facts})


@contextmanager
def guarded(seconds: int) -> Iterator[None]:
    """Fail what takes long, interrupting a system call that waits, or a lot of memory."""

    def stop(*_: object) -> None:
        pytest.fail(f"no end after {seconds} seconds")

    def release() -> None:
        # What waits for a pipe outside of Python is not interrupted by a signal.
        for path in filter(Path.is_fifo, Path.cwd().rglob("*")):
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))

    timer = threading.Timer(seconds, release)
    timer.start()

    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, limits[1]))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        timer.cancel()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make each thing once a session, when it is first asked for."""
    base = tmp_path_factory.mktemp("shelf")

    def get(name: str) -> Path:
        path = base / name
        if not path.exists():
            for needed in NEEDS.get(name, []):
                get(needed)
            SHELF[name](base)
        return path

    return get


def _make(name: str) -> Callable[[Path], None]:
    def make(base: Path) -> None:
        # Its own process would import torch once more.
        here = Path.cwd()
        os.chdir(base)
        try:
            assert main(words(MAKERS[name])) == 0
        finally:
            os.chdir(here)

    return make


def _images(root: Path, folders: list[str], count: int) -> None:
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for index in range(count):
            noise = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
            noise[..., number % 2] += 100
            Image.fromarray(noise).save(root / folder / f"{index}.png")


def _make_data(base: Path) -> None:
    _images(base / "data", [f"{split}/{c}" for split in ("train", "val") for c in ("ant", "bee")],
            8)  # fmt: skip


def _make_toys(base: Path) -> None:
    _images(base / "toys", [f"{domain}/{c}" for domain in ("x", "y", "z") for c in ("ant", "bee")],
            6)  # fmt: skip


def _make_sweep(base: Path) -> None:
    from core_tuning.sweeps.expand import load_sweep
    from core_tuning.sweeps.folder import start_sweep
    from core_tuning.sweeps.job import run_job

    (base / "mine.toml").write_text(DEFINITION)
    (base / "fake.py").write_text(FAKE)
    sweep = load_sweep(str(base / "mine.toml"))
    folder = start_sweep(base / "sweep", sweep, [sys.executable, str(base / "fake.py")])
    for id in folder.runs:
        assert run_job(folder.path, id) == 0


def _make_definition(base: Path) -> None:
    (base / "mine.toml").write_text(DEFINITION)


def _make_model(base: Path) -> None:
    shutil.copy(base / "run" / "model.safetensors", base / "model.safetensors")
    assert load_file(base / "model.safetensors")


SHELF: dict[str, Callable[[Path], None]] = {
    **{name: _make(name) for name in MAKERS},
    "data": _make_data,
    "toys": _make_toys,
    "sweep": _make_sweep,
    "mine.toml": _make_definition,
    "model.safetensors": _make_model,
}
NEEDS["model.safetensors"] = ["run"]


@pytest.fixture
def room(tmp_path: Path, shelf: Callable[[str], Path], monkeypatch) -> Iterator[Room]:
    """An empty working folder, in which this process is."""
    path = tmp_path / "room"
    path.mkdir()
    monkeypatch.chdir(path)
    monkeypatch.delenv("DOMAINBED_ROOT", raising=False)
    yield Room(path, shelf)


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command line as a process of its own."""

    def run(line: str, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "core_tuning", *words(line)],
            capture_output=True, text=True, timeout=MOST_SECONDS, **options,
        )  # fmt: skip

    return run
