"""`core-tuning finetune` where a run is already: --resume, --overwrite and more seeds."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.cli import main


def test_resume_of_a_finished_run_does_nothing(kit, finetune, monkeypatch):
    run = finetune("--checkpoint-minutes", 5)
    before = kit.files(run)
    monkeypatch.setattr("core_tuning.training.classify.Classification.build", int)
    finetune("--checkpoint-minutes", 5, "--resume")
    after = kit.files(run)
    for files in (before, after):
        del files[run / "run.json"], files[run / ".lock"]
    assert after == before


def test_resume_of_another_configuration(kit, finetune, capsys, tmp_path, data):
    run = finetune(epochs=1)
    before = kit.files(run)
    base = ("finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
            *kit.SMALL, "--epochs", 1, "--output", run, "--resume")  # fmt: skip
    for options, named in [
        (("--lr", 0.5), "lr = 0.01, not 0.5"),
        (("--eta", 0), "eta = 0.1, not 0.0"),
        (("--method", "ce"), "method = 'core_tuning', not 'ce'"),
        (("--seeds", 3), "seed = 0, not 3"),
        (("--epochs", 2), "epochs = 1, not 2"),
        (
            ("--pretrained", "random", "--encoder", "small_resnet"),
            "pretrained = 'embedded', not 'random'",
        ),
        (("--precision", "bf16"), "precision = 'fp32', not 'bf16'"),
        (("--validation", 0.2), "validation = 0.1, not 0.2"),
    ]:
        assert named in kit.refused(capsys, *base, *options)
    assert kit.files(run) == before


def test_harmless_options_may_differ_on_resume(kit, finetune, monkeypatch, tmp_path):
    whole = finetune(output="whole")

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(AssertionError):
        # Ctrl-C after the first epoch, which main reports by another exit code.
        patch.setattr("core_tuning.training.recorder.RunRecorder.keep_model", stop)
        finetune()
    run = finetune("--resume", "--workers", 1, "--checkpoint-minutes", 3, "--tensorboard")
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, run))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert kit.read(run / "run.json")["options"]["workers"] == 1
    assert (run / "tensorboard").is_dir()


def test_resume_goes_on_with_the_missing_seeds(kit, finetune, monkeypatch):
    output = finetune("--seeds", 0, 1, method="ce")
    before = kit.read(output / "summary.json")
    (output / "seed-1" / "result.json").unlink()
    (output / "summary.json").unlink()
    finetune("--seeds", 0, 1, "--resume", method="ce")
    assert kit.read(output / "summary.json") == before


def test_overwrite_begins_anew(kit, finetune):
    run = finetune("--seeds", 0, method="ce")
    first = kit.read(run / "result.json")
    finetune("--overwrite", epochs=1)
    second = kit.read(run / "result.json")
    assert (first["method"], second["method"]) == ("ce", "core_tuning")
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def test_more_seeds_into_a_single_run(kit, finetune, data, capsys):
    run = finetune(epochs=1)
    error = kit.refused(
        capsys, "finetune", "--dataset", "folder", "--data-dir", data, "--pretrained", "embedded",
        *kit.SMALL, "--output", run, "--seeds", 0, 1, "--resume",
    )  # fmt: skip
    assert re.search("holds a single run, and 2 runs would go there", error)


def test_resume_needs_no_other_option(kit, finetune, data, tmp_path, capsys):
    """Also from a copy of the folder, whose images lie elsewhere now."""
    whole = finetune("--seeds", 0, 1, method="ce", output="whole")
    cut = tmp_path / "copied"
    shutil.copytree(whole, cut)
    for name in ("result.json", "metrics.jsonl", "model.safetensors", "checkpoint.pt"):
        (cut / "seed-1" / name).unlink()
    data.rename(tmp_path / "moved")
    command = ["finetune", "--resume", str(cut), "--data-dir", str(tmp_path / "moved")]
    assert main(command) == 0
    for name in ("seed-0/result.json", "seed-1/result.json", "summary.json"):
        first, second = (kit.read(folder / name) for folder in (whole, cut))
        for result in (first, second):
            result.pop("seconds", None)
        assert first == second
    refused = kit.refused(capsys, "robust", "train", "--resume", cut)
    assert "is one of 'core-tuning finetune', not of 'core-tuning robust train'" in refused
