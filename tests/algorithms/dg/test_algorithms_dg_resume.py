"""Stopped runs go on as if nothing had happened, and others are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from core_tuning.cli import main

LONG = ("--steps", 40, "--eval-every", 9, "--checkpoint-minutes", 0)
# Dropout, so that the global generator matters too.
HPARAMS = {"resnet_dropout": 0.3, "lr_decay": 0.5}


def kill_at(kit, folder, step, *options):
    """Start a run and kill it, workers included, once a checkpoint of this step is there."""
    argv = kit.argv(folder, *LONG, *options, **HPARAMS)
    process = subprocess.Popen([sys.executable, "-m", "core_tuning", *argv],
                               stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    deadline = time.monotonic() + 120
    try:
        while saved_step(folder) < step:
            assert time.monotonic() < deadline and process.poll() is None, "no checkpoint in time"
            time.sleep(0.01)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return saved_step(folder)


def saved_step(folder):
    path = folder / "checkpoint.pt"
    return torch.load(path, weights_only=True)["step"] if path.exists() else -1


@pytest.fixture(scope="module")
def whole(kit, tmp_path_factory):
    return kit.run(tmp_path_factory.mktemp("whole") / "run", *LONG, **HPARAMS)


def test_kill_9_and_resume_with_other_workers(kit, whole, tmp_path):
    run = tmp_path / "run"
    left_at = kill_at(kit, run, 12)
    assert 12 <= left_at < 40
    assert not (run / "done").exists()
    kit.run(run, *LONG, "--resume", "--workers", 2, **HPARAMS)
    kit.assert_same_run(whole, run)
    first, second = (
        torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, run)
    )
    assert first["step"] == second["step"] == 40
    for key, state in first["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, second["optimizer"]["state"][key][name])


@pytest.mark.parametrize(
    "stop_in",
    ["training.loop._Run.save", "training.recorder.RunRecorder.save",
     "algorithms.dg_run.save_model", "algorithms.dg_run.append_line",
     "algorithms.dg_run.write_run_report", "algorithms.dg_run.write_atomically"],
)  # fmt: skip
def test_a_stop_between_any_two_writes(kit, tmp_path, monkeypatch, stop_in):
    """Ctrl-C where the record, the best model or the checkpoint is being written."""
    whole = kit.run(tmp_path / "whole", "--checkpoint-minutes", 0)
    run, calls = tmp_path / "run", []
    with monkeypatch.context() as patch:

        def stop(*_, **__):
            calls.append(1)
            raise KeyboardInterrupt

        patch.setattr(f"core_tuning.{stop_in}", stop)
        assert main(kit.argv(run, "--checkpoint-minutes", 0)) == 130
    assert calls
    kit.run(run, "--checkpoint-minutes", 0, "--resume")
    kit.assert_same_run(whole, run)


def test_workers_and_memory_change_nothing(kit, finished, tmp_path):
    run = kit.run(tmp_path, "--test_envs", 1, "--workers", 2, "--memory", 0)
    kit.assert_same_run(finished, run)


def test_another_seed_is_another_run(kit, finished, tmp_path):
    other = kit.run(tmp_path / "seed", "--test_envs", 1, "--trial_seed", 1)
    losses = {tuple(r["loss"] for r in kit.records(folder)) for folder in (finished, other)}
    assert len(losses) == 2


def test_a_finished_run_is_left_as_it_is(kit, finished, capsys):
    before = kit.stamps(finished)
    kit.run(finished, "--test_envs", 1, "--resume")
    after = kit.stamps(finished)
    assert "CoreTuning" in capsys.readouterr().out
    selection = finished / "selection.json"
    assert before.pop(selection)[1] == after.pop(selection)[1]
    assert after == before


@pytest.mark.parametrize(
    ("options", "hparams", "named"),
    [
        (("--steps", 6), {}, "started with steps = 5, not 6"),
        (("--checkpoint_freq", 3), {}, "started with eval_every = 2, not 3"),
        (("--seeds", 3), {}, "started with seed = 0, not 3"),
        (("--algorithm", "CECon"), {}, "started with method = ['core_tuning'], not ['ce_con']"),
        (("--test_envs", 2), {}, "started with test_envs = ['1'], not ['2']"),
        (("--holdout_fraction", 0.3), {}, "started with holdout_fraction = 0.2, not 0.3"),
        (("--augmented-validation",), {}, "started with augmented_validation = False, not True"),
        (("--skip-training-splits",), {}, "started with skip_training_splits = False, not True"),
        (("--precision", "bf16"), {}, "started with precision = 'fp32', not 'bf16'"),
        (("--image-size", 20), {}, "started with image_size = 16, not 20"),
        ((), {"eta": 1.0}, "started with hparams = {'checkpoint': 'embedded', 'batch_size': 4}"),
    ],
)
def test_resume_with_other_options(kit, finished, capsys, options, hparams, named):
    before = kit.stamps(finished)
    argv = kit.argv(finished, "--test_envs", 1, "--resume", *options, **hparams)
    sentence = kit.sentence(capsys, argv)
    assert named in sentence
    assert len(sentence) < 300
    assert kit.stamps(finished) == before


def test_all_runs_are_checked_before_the_first(kit, tmp_path, capsys):
    """A folder that the third run cannot go on with stops the call at once."""
    targets = ("--test_envs", "all", "--algorithm", "CETuning", "--steps", 1)
    kit.run(tmp_path / "ce_target2_hparams0_seed0", *targets[2:], "--test_envs", 2,
            "--holdout_fraction", 0.3)  # fmt: skip
    before = kit.stamps(tmp_path)
    assert "holdout_fraction = 0.3, not 0.2" in kit.sentence(
        capsys, kit.argv(tmp_path, *targets, "--resume")
    )
    assert "is not empty" in kit.sentence(capsys, kit.argv(tmp_path, *targets))
    assert kit.stamps(tmp_path) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_resumed(kit, tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    for option in ("--resume", "--overwrite"):
        assert "run.json" in kit.sentence(capsys, kit.argv(tmp_path, option))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_overwrite_begins_anew(kit, tmp_path):
    run = kit.run(tmp_path / "run", "--steps", 3)
    (run / "model_step0.pkl").write_bytes(b"old")
    kit.run(run, "--overwrite", "--algorithm", "CETuning", "--steps", 1)
    assert not (run / "model_step0.pkl").exists()
    (record,) = kit.records(run)
    assert (record["args"]["algorithm"], record["step"]) == ("CETuning", 0)


def test_several_runs_into_a_single_runs_folder(kit, finished, capsys):
    before = kit.stamps(finished)
    for option in ((), ("--resume",), ("--overwrite",)):
        argv = kit.argv(finished, "--test_envs", "all", *option)
        assert "holds a single run" in kit.sentence(capsys, argv)
    assert kit.stamps(finished) == before


def test_a_diverged_run_keeps_what_is_good(kit, tmp_path, capsys):
    argv = kit.argv(tmp_path, lr=1e30)
    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "The loss is not finite at step 2: lower --lr (now 1e+30)" in error
    assert "Traceback" not in error
    (record,) = kit.records(tmp_path)
    assert record["step"] == 0
    assert not (tmp_path / "done").exists()
