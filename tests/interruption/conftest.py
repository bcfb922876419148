"""Processes to interrupt: forked off one that has imported everything, so that each starts at once.

They run in a session of their own, so that a signal can go to a process and to its group.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.files import read_lines
from core_tuning.training.folder import check_sums

PRELOADED = [
    f"core_tuning.{name}"
    for name in (
        "training.classify", "algorithms.dg_run", "algorithms.dg", "algorithms.demo_report",
        "classification.finetune", "robustness.adversary", "robustness.evaluate",
        "sweeps.run", "sweeps.job",
    )
]  # fmt: skip
PROGRAM = """
import multiprocessing, os, sys
os.setsid()
# As in a process that was started by hand, whose loaders fork.
multiprocessing.set_start_method("fork", force=True)
os.chdir({folder!r})
os.environ.update({environment!r})
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.dup2(log, 1)
os.dup2(log, 2)
{prelude}
from core_tuning.cli import main
sys.exit(main({argv!r}))
"""
LIMIT_SECONDS = 240
# What differs from one process, machine or second to the next.
TIMES = {"seconds", "step_time", "step_seconds", "environments", "mem_gb"}


class Command:
    """A command line in a process.

    Args:
        folder: to work in; its log goes beside it.
        argv: of core-tuning.
        prelude: lines of Python to run before it.
    """

    def __init__(self, folder: Path, argv: list[object], prelude: str = "") -> None:
        folder.mkdir(exist_ok=True, parents=True)
        self.log = folder.parent / f"{folder.name}.log"
        environment = {
            name: os.environ[name] for name in os.environ if name.startswith("CORE_TUNING")
        }
        program = PROGRAM.format(
            folder=str(folder), environment=environment, log=str(self.log), prelude=prelude,
            argv=[str(word) for word in argv],
        )  # fmt: skip
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.process: BaseProcess = context.Process(target=exec, args=(program, {}))
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def is_alive(self) -> bool:
        return self.process.is_alive()

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"no end after {seconds} s: {self.said}"
        return self.process.exitcode

    def finish(self) -> None:
        assert self.wait() == 0, self.said

    def send(self, kind: int, *, group: bool = False) -> None:
        (os.killpg if group else os.kill)(self.pid, kind)

    def kill(self) -> None:
        """End it and whatever it has started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            # It ended by itself, or has not got so far as to lead a session.
            self.process.kill()
        self.process.join()

    def wait_until(self, condition: Callable[[], object], what: str = "it") -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert self.is_alive(), f"ended before {what}: {self.said}"
            assert time.monotonic() < deadline, f"waited too long for {what}: {self.said}"
            time.sleep(0.002)


@pytest.fixture
def run() -> Iterator[Callable[..., Command]]:
    """Start commands, which end with the test."""
    started = []

    def start(*arguments: Any, **options: Any) -> Command:
        started.append(Command(*arguments, **options))
        return started[-1]

    yield start
    for command in started:
        if command.is_alive():
            command.kill()


def _plain(value: Any) -> Any:
    """A value without what differs from one process to the next; tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), str(value.dtype), value.contiguous().numpy().tobytes())
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def outcome(folder: Path) -> dict[str, Any]:
    """What a command left, by file, whatever the time that it took."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name in (".lock", "report.html"):
            continue
        if path.suffix == ".json":
            contents: Any = json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            contents = [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix in (".pt", ".pkl"):
            contents = torch.load(path, weights_only=True)
        elif path.suffix == ".safetensors":
            contents = dict(load_file(path))
        else:
            contents = path.read_bytes()
        found[str(path.relative_to(folder))] = _plain(contents)
    return found


def check_readable(folder: Path) -> None:
    """Check that no file of a folder is half-written; those that begin with a dot are no one's."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.name.startswith("."):
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            read_lines(path)
        elif path.suffix in (".pt", ".pkl"):
            check_sums(path)
        elif path.suffix == ".safetensors":
            load_file(path)


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of the files in which two outcomes differ, and of those that one of them lacks."""
    return [
        name for name in sorted(first.keys() | second.keys()) if first.get(name) != second.get(name)
    ]


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    import types

    return types.SimpleNamespace(
        Command=Command, outcome=outcome, check_readable=check_readable, differing=differing
    )


@pytest.fixture(scope="session")
def shelf(tmp_path_factory) -> Path:
    """A folder with `data` (train, val of two classes, the latter large) and `toys` (domains)."""
    import numpy as np
    from PIL import Image

    base = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    counts = {f"data/{split}": count for split, count in (("train", 24), ("val", 10))}
    counts |= {f"large/{split}": count for split, count in (("train", 16), ("val", 400))}
    counts |= {f"toys/{domain}": 10 for domain in "xyz"}
    for folder, count in counts.items():
        for number, name in enumerate(("ant", "bee")):
            (base / folder / name).mkdir(parents=True)
            for index in range(count):
                noise = generator.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                noise[..., number] += 100
                Image.fromarray(noise).save(base / folder / name / f"{index:04}.png")
    return base
