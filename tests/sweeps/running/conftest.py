"""A sweep of fake runs: small scripts that count, resume, fail and note when they are started."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from core_tuning.sweeps.expand import Sweep
from core_tuning.sweeps.folder import start_sweep
from core_tuning.sweeps.plan import Run, Stage

# Counts in a file, as a run that saves checkpoints; of dg's options --steps are what it counts to,
# --checkpoint-minutes the pause before each, and --method how it ends.
FAKE = """
import os, sys, time
from pathlib import Path
given = dict(zip(sys.argv, sys.argv[1:]))
folder, until = Path(given["--output"]), int(given["--steps"])
pause, mode = float(given["--checkpoint-minutes"]), given["--method"]
folder.mkdir(parents=True, exist_ok=True)
counter = folder / "counter"
count = int(counter.read_text()) if counter.exists() else 0
with (folder / "starts").open("a") as file:
    file.write(f"{os.getpid()} {count}\\n")
while count < until:
    time.sleep(pause)
    count += 1
    (folder / "new").write_text(str(count))
    (folder / "new").replace(counter)
print("counted")
if mode == "fail" and not (folder.parent / "mended").exists():
    sys.exit("boom: no such GPU\\n")
if mode == "die":
    os.kill(os.getpid(), 11)
if mode != "forget":
    (folder / "done").write_text("done")
if mode == "threads":
    (folder / "threads").write_text(str({key: os.environ.get(key) for key in
        ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}))
"""
# A shell's background jobs, and whatever they start, ignore Ctrl-C: a terminal's do not.
DRIVER = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
from core_tuning.sweeps.folder import open_sweep
from core_tuning.sweeps.launch import Place
from core_tuning.sweeps.run import make_runs
folder = open_sweep(Path(sys.argv[1]))
sys.exit(make_runs(folder, list(folder.runs), "local", Place(workers=int(sys.argv[2]))))
"""
PATIENCE_SECONDS = 30


def fake_stage(until=1, pause=0.0, mode="ok", command="dg"):
    return Stage(command, {"steps": until, "checkpoint_minutes": pause, "method": mode})


def fake_run(id, *, seed=0, stages=None, **options):
    own = (fake_stage(**options),) if stages is None else stages
    return Run(id, f"fake {id}", {"row": id}, seed, own, None)


def fake_sweep(*runs, name="fake", definition="title = 'fake'\n"):
    return Sweep(name, "Fake", [], runs, definition)


def wait_until(condition, what="the condition"):
    """Wait for something that other processes bring about."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.02)


def starts(folder, id):
    """(process, count that it started from) of every start of a run."""
    path = folder.run_path(id) / "starts"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def count_of(folder, id):
    path = folder.run_path(id) / "counter"
    return int(path.read_text()) if path.exists() else 0


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def command(tmp_path):
    """What stands in for `python -m core_tuning`."""
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    # -S: a fake run needs nothing that is installed.
    return [sys.executable, "-S", str(script)]


@pytest.fixture
def make(tmp_path, command):
    """Make the folder of a sweep of these runs."""

    def call(*runs, name="sweep"):
        return start_sweep(tmp_path / name, fake_sweep(*runs), command)

    return call


@pytest.fixture
def drive():
    """Start a process that makes the runs of a folder on this machine; ended with the test."""
    processes = []

    def call(folder, workers=2):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(folder.path), str(workers)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )
        processes.append(process)
        return process

    yield call
    for process in processes:
        if process.poll() is None:
            process.terminate()
            process.wait(PATIENCE_SECONDS)
        process.communicate()


@pytest.fixture(scope="session")
def fakes():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(
        run=fake_run, stage=fake_stage, sweep=fake_sweep, wait_until=wait_until, starts=starts,
        count_of=count_of, alive=alive,
    )  # fmt: skip
