"""SIGTERM, as of a preempted job: the run is saved at once, says how to go on, and goes on."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
import torch

from core_tuning.files import read_lines

MOST_SECONDS = 10
# There alone is a bar, from which the step is read.
AS_ON_A_TERMINAL = "sys.stderr.isatty = lambda: True"
# The validation split is large: a process is in its evaluation for a while.
FINETUNE = (
    "--dataset", "folder", "--data-dir", "{base}/large", "--pretrained", "embedded",
    "--transforms", "small", "--image-size", 16, "--batch-size", 4, "--epochs", 2, "--workers", 2,
    "--output", "out",
)  # fmt: skip
COMMANDS = {
    "finetune": ("finetune", *FINETUNE),
    "dg": (
        "dg", "--dataset", "large", "--data_dir", "{base}", "--image-size", 16, "--steps", 120,
        "--eval-every", 100, "--workers", 2, "--output_dir", "out", "--hparams",
        '{"checkpoint": "embedded", "batch_size": 4}',
    ),
    "robust train": ("robust", "train", *FINETUNE, "--attack-steps", 1, "--ema", 0.9),
}  # fmt: skip
LINES = {"finetune": "metrics.jsonl", "dg": "results.jsonl", "robust train": "metrics.jsonl"}
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) if name == "robust train" else name
    for name in COMMANDS
]


@pytest.fixture(scope="session")
def line(shelf):
    """The arguments of a command."""
    return lambda name: [str(word).replace("{base}", str(shelf)) for word in COMMANDS[name]]


@pytest.fixture(scope="session")
def whole(kit, shelf, line):
    """What a command leaves when nothing stops it."""
    known = {}

    def get(name):
        if name not in known:
            folder = shelf / f"never stopped {name}"
            kit.Command(folder, line(name)).finish()
            known[name] = kit.outcome(folder / "out")
        return known[name]

    return get


def steps_shown(command):
    """The step at which the bar stands."""
    return max(map(int, re.findall(r" (\d+)/\d+ \[[^]]*step", command.said)), default=0)


def processes_of(session):
    """Those of a session that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, own = stat.read_text().rsplit(")", 1)[1].split()[:4]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(own) == session and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("moment", ["step", "evaluation"])
@pytest.mark.parametrize("name", SLOW)
def test_sigterm(kit, run, line, whole, tmp_path, name, moment, group):
    if name == "robust train":
        pytest.importorskip("torchattacks")
    out = tmp_path / "work" / "out"
    checkpoint, lines = out / "checkpoint.pt", out / LINES[name]
    command = run(tmp_path / "work", line(name), AS_ON_A_TERMINAL)
    if moment == "evaluation":
        command.wait_until(checkpoint.exists, "an evaluation")
        assert read_lines(lines) == []
    else:
        # The first step of dg is followed by an evaluation, and then come others.
        command.wait_until(lambda: steps_shown(command) >= 3, "the third step")
    before = len(read_lines(lines))
    sent = time.monotonic()
    command.send(signal.SIGTERM, group=group)
    assert command.wait(MOST_SECONDS) == 143
    assert time.monotonic() - sent < MOST_SECONDS
    assert "stopped by SIGTERM; what is done is saved, and --resume goes on" in command.said
    assert "Traceback" not in command.said, command.said
    deadline = time.monotonic() + 5
    while processes_of(command.pid):
        assert time.monotonic() < deadline, "a worker survives"
        time.sleep(0.05)
    assert torch.load(checkpoint, weights_only=True)["step"] == steps_shown(command)
    if moment == "evaluation":
        assert len(read_lines(lines)) == before == 0
    kit.check_readable(out)
    run(tmp_path / "work", [*line(name), "--resume"]).finish()
    assert kit.differing(whole(name), kit.outcome(out)) == []
