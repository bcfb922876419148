"""`core-tuning robust train`: what a run leaves behind, and that its options do something."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.training.exported import load_model

pytest.importorskip("torchattacks")


def weights(run):
    return load_file(run.folder / "model.safetensors")


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("method", ["ce", "ce_con", "core_tuning"])
def test_a_run_of_each_objective(train, method):
    run = train("--norm", "linf", "--eps", "8/255", method=method)
    line = run.lines[0]
    assert {"clean_top1", "robust_top1", "zero_gradients", "eps"} <= line["train"].keys()
    assert line["train"]["eps"] == pytest.approx(8 / 255)
    assert line["validation"]["robust_top1"] <= line["validation"]["top1"]
    assert run.result["selection"] == "best validation robust top-1"
    attack = {"norm": "linf", "eps": 8 / 255, "eps_text": "8/255", "steps": 2,
              "step_size": pytest.approx(10 / 255)}  # fmt: skip
    assert run.result["adversarial"] == attack
    assert load_model(run.folder)[1]["adversarial"] == attack
    assert run.result["test"]["robust_top1"] <= run.result["test"]["top1"]


def test_options_change_the_weights(train):
    base = weights(train("--eps", "0.5", output="base"))
    assert same(base, weights(train("--eps", "0.5", output="again")))
    for name, options in {
        "eps": ("--eps", "0.1"),
        "norm": ("--norm", "linf", "--eps", "0.1"),
        "step": ("--eps", "0.5", "--step-size", "0.01"),
        "weight": ("--eps", "0.5", "--adv-weight", "0.9"),
        "only": ("--eps", "0.5", "--adversarial-only"),
        "warmup": ("--eps", "0.5", "--eps-warmup", "0", "0.6"),
        "ema": ("--eps", "0.5", "--ema", "0.5"),
    }.items():
        assert not same(base, weights(train(*options, output=name))), name


def test_no_clean_accuracy_without_clean_images(train):
    assert "clean_top1" not in train("--adversarial-only").lines[0]["train"]


def test_bf16_attack(train):
    run = train("--attack-precision", "bf16")
    options = json.loads((run.folder / "run.json").read_text())["options"]
    assert (options["precision"], options["attack_precision"]) == ("fp32", "bf16")


def test_accumulation_attacks_every_micro_batch(train):
    run = train("--accumulate", "2")
    assert run.lines[0]["step"] == 2


def test_the_model_is_selected_by_robust_accuracy(train, monkeypatch):
    """Clean accuracy falls and robust accuracy rises: the last epoch's model is kept."""
    from core_tuning.robustness.adversary import RobustEvaluation
    from core_tuning.training.evaluate import Evaluation

    robust = iter([3, 5, 4, 5])

    def scripted(model, loader, num_classes, *, budget, seed):
        right = next(robust)
        predicted = (torch.arange(10) < right).long()
        clean = Evaluation(torch.zeros_like(predicted), predicted, torch.ones(10), 2, 1.0)
        return RobustEvaluation(clean, right, 0.0)

    monkeypatch.setattr("core_tuning.robustness.adversary.evaluate_robust", scripted)
    run = train("--epochs", "3")
    assert run.result["selected_step"] == run.lines[1]["step"]
    assert run.result["validation"]["robust_top1"] == 50


def test_seeds_are_summarised(train, arguments, tmp_path, capsys):
    from core_tuning.cli import main

    assert main(arguments("--seeds", "0", "1")) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["robust_top1"]["runs"] == 2
    printed = capsys.readouterr().out
    assert "robust top-1: " in printed and "mean ± standard error" in printed
    assert "core-tuning robust evaluate" in printed


def test_resume_of_another_attack_is_refused(train, arguments, capsys):
    from core_tuning.cli import main

    train("--eps", "0.5")
    assert main(arguments("--eps", "0.4", "--resume")) == 2
    assert "eps = '0.5', not '0.4'" in capsys.readouterr().err
