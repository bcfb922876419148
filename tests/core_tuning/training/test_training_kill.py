"""kill -9 at random moments, for real: the resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

EPOCHS = 3
KILLS = 3
LIMIT_SECONDS = 120


FINETUNE = ("finetune",)
AVERAGED = ("finetune", "--ema", "0.9")
ROBUST = ("robust", "train", "--attack-steps", "2", "--ema", "0.9", "--eps-warmup", "0.5", "1")


def start(command, folder, data, method, *options):
    command = [
        sys.executable, "-m", "core_tuning", *command, "--method", method,
        "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        "--transforms", "small", "--image-size", "32", "--batch-size", "8", "--epochs", EPOCHS,
        "--checkpoint-minutes", "0", "--output", folder, *options,
    ]  # fmt: skip
    # A session of its own, so that its workers are killed with it.
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process):
    output, _ = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 0, output


def stamp(path):
    return path.stat().st_mtime_ns if path.exists() else None


def kill_after_saves(process, checkpoint, saves, delay):
    """Kill the processes a while after this one saved so often; return the step left, or None."""
    last, seen, deadline = stamp(checkpoint), 0, time.monotonic() + LIMIT_SECONDS
    while seen < saves and process.poll() is None:
        if time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"{seen} of {saves} checkpoints were written: {process.communicate()[0]}")
        time.sleep(0.002)
        if stamp(checkpoint) != last:
            last, seen = stamp(checkpoint), seen + 1
    time.sleep(delay)
    if process.poll() is not None:
        finish(process)
        return None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return torch.load(checkpoint, weights_only=True)["step"]


def assert_equal(first, second, where):
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal(first[key], second[key], f"{where}, {key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{where}, {number}")
    else:
        assert first == second, where


def read_run(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    for record in (*lines, result):
        del record["seconds"]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    parts = (
        "image_encoder", "classifier", "objective", "average", "optimizer", "step", "best_score",
    )  # fmt: skip
    return {
        "metrics": lines,
        "model": load_file(folder / "model.safetensors"),
        "checkpoint": {name: state[name] for name in parts},
        "result": result,
        "confusion": (folder / "confusion.csv").read_text(),
    }


@pytest.mark.parametrize(
    ("command", "method", "steps_an_epoch", "workers", "seed"),
    [
        (FINETUNE, "core_tuning", 45, 0, 4),
        (AVERAGED, "ce", 45, 1, 2),
        (ROBUST, "core_tuning", 12, 0, 3),
    ],
    ids=["core_tuning", "ce", "adversarial"],
)
def test_killed_and_resumed(tmp_path, write_folder, command, method, steps_an_epoch, workers, seed):
    if command is ROBUST:
        pytest.importorskip("torchattacks")
    data = write_folder(
        tmp_path / "data", {"train": 4 * steps_an_epoch, "val": 10, "test": 10}, size=32
    )
    # The number of workers changes nothing, so the uninterrupted run may have another.
    finish(start(command, tmp_path / "whole", data, method, "--workers", 1 - workers))
    moments = random.Random(f"{method} {seed}")
    folder, steps = tmp_path / "cut", []
    for attempt in range(KILLS):
        resume = ["--resume"] if attempt else []
        process = start(command, folder, data, method, "--workers", workers, *resume)
        # Every step saves. Seconds would reach other steps on a faster machine.
        saves, delay = moments.randint(1, steps_an_epoch * 2 // 3), moments.uniform(0, 0.05)
        steps.append(kill_after_saves(process, folder / "checkpoint.pt", saves, delay))
    finish(start(command, folder, data, method, "--workers", workers, "--resume"))
    print("checkpoints left by the kills are of the steps", steps)
    assert any(step is not None and step % steps_an_epoch for step in steps)
    whole, resumed = read_run(tmp_path / "whole"), read_run(folder)
    assert whole["checkpoint"]["step"] == EPOCHS * steps_an_epoch
    average = whole["checkpoint"]["average"]
    if "--ema" in command:
        assert average["updates"] == EPOCHS * steps_an_epoch
        assert "image_encoder.encoder.bn1.running_mean" in average["learner"]
    else:
        assert average is None
    for name in whole:
        assert_equal(whole[name], resumed[name], f"{name} after kills at {steps}")
