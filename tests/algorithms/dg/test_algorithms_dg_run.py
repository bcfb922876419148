"""A run of `core-tuning dg`: what it writes, and who can read it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from core_tuning.algorithms.saved import load_model
from core_tuning.cli import main
from core_tuning.data import build_transforms, load_domains
from core_tuning.training import exported

# Typed from DomainBed's train.py.
ARGUMENTS = {
    "data_dir": str, "dataset": str, "algorithm": str, "task": str, "hparams": str,
    "hparams_seed": int, "trial_seed": int, "seed": int, "steps": int, "checkpoint_freq": int,
    "test_envs": list, "output_dir": str, "holdout_fraction": float,
    "uda_holdout_fraction": int, "skip_model_save": bool, "save_model_every_checkpoint": bool,
}  # fmt: skip
ACCURACIES = {f"env{number}_{part}_acc" for number in range(3) for part in ("in", "out")}
RESULTS = {"step", "epoch", "loss", "step_time", "mem_gb", "hparams", "args"} | ACCURACIES
TERMS = {"cross_entropy", "contrastive"}
FILES = {
    "results.jsonl", "done", "model.pkl", "best_iid.pkl", "model.safetensors", "run.json",
    "checkpoint.pt", "figures", "selection.json", ".lock", "last.safetensors", "metrics.jsonl",
    "result.json", "report.html", "classes.csv", "confusion.csv",
}  # fmt: skip


def test_files(finished):
    assert {path.name for path in finished.iterdir()} == FILES
    assert (finished / "done").read_text() == "done"
    result = json.loads((finished / "result.json").read_text())
    stored = torch.load(finished / "model.pkl", weights_only=True)
    assert result["hparams"] == stored["model_hparams"]
    run = json.loads((finished / "run.json").read_text())
    assert (run["command"], run["seed"]) == ("dg", 0)
    options = run["options"]
    assert (options["steps"], options["eval_every"], options["precision"]) == (5, 2, "fp32")
    page = (finished / "report.html").read_text()
    for shown in ("Core-tuning on toys without cut, seed 0", "Curves", "Confusion"):
        assert shown in page


def test_records_are_domainbeds(kit, finished):
    records = kit.records(finished)
    assert [record["step"] for record in records] == [0, 2, 4]
    for record in records:
        assert record.keys() == RESULTS | TERMS
        args = record["args"]
        assert {name: type(value) for name, value in args.items()} == ARGUMENTS
        assert record["hparams"]["eta"] == 0.1
        assert (args["dataset"], args["algorithm"]) == ("toys", "CoreTuning")
        assert (args["test_envs"], args["checkpoint_freq"]) == ([1], 2)
        assert args["output_dir"] == str(finished)
        assert all(0 <= record[name] <= 1 for name in ACCURACIES)
        # DomainBed's epoch is of the smallest domain's in-split, here 24 images.
        assert record["epoch"] == pytest.approx(record["step"] * 4 / 24)
        assert record["step_time"] > 0
        assert record["loss"] == pytest.approx(
            record["cross_entropy"] + 0.1 * record["contrastive"], rel=1e-5
        )


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [(1, 1, [0]), (3, 1, [0, 1, 2]), (4, 3, [0, 3]), (5, 3, [0, 3, 4]), (3, 100, [0, 2])],
)
def test_steps_that_are_evaluated(kit, tmp_path, steps, every, expected):
    run = kit.run(tmp_path, "--algorithm", "CETuning", "--steps", steps, "--eval-every", every,
                  "--skip-training-splits", "--skip_model_save")  # fmt: skip
    records = kit.records(run)
    assert [record["step"] for record in records] == expected
    # The smallest domain, of 24 images in its in-split, is the target: it counts nevertheless.
    assert [record["epoch"] for record in records] == pytest.approx([s * 4 / 24 for s in expected])
    left_out = {"env1_in_acc", "env2_in_acc"}
    assert records[0].keys() == RESULTS - left_out
    assert records[0]["args"]["skip_model_save"] is True
    assert not list(run.glob("*.pkl")) + list(run.glob("*.safetensors"))
    assert (run / "done").exists()


def test_loss_is_the_mean_since_the_last_record(kit, tmp_path):
    every, third = [
        kit.records(kit.run(tmp_path / str(n), "--algorithm", "CETuning", "--eval-every", n))
        for n in (1, 3)
    ]
    assert third[1]["loss"] == pytest.approx(sum(every[i]["loss"] for i in (1, 2, 3)) / 3)
    assert third[2]["loss"] == pytest.approx(every[4]["loss"])
    assert [r["env0_in_acc"] for r in third] == [every[i]["env0_in_acc"] for i in (0, 3, 4)]


def test_the_best_model_is_that_of_the_best_source_validation(kit, tmp_path):
    run = kit.run(tmp_path, "--eval-every", 1, "--save_model_every_checkpoint", lr=3e-3)
    records = kit.records(run)
    validation = [(r["env1_out_acc"] + r["env2_out_acc"]) / 2 for r in records]
    best = validation.index(max(validation))
    assert best > 0, "a better data set is needed for this test"
    wanted, kept = kit.weights(run, f"model_step{best}.pkl"), kit.weights(run, "best_iid.pkl")
    assert all(torch.equal(wanted[name], kept[name]) for name in wanted)
    last, final = kit.weights(run, "model_step4.pkl"), kit.weights(run)
    assert all(torch.equal(last[name], final[name]) for name in last)
    _, facts = exported.load_model(run)
    assert facts["step"] == best + 1
    result = json.loads((run / "result.json").read_text())
    assert (result["selected_step"], result["steps"]) == (best + 1, 5)
    assert result["validation"]["top1"] == pytest.approx(100 * max(validation))
    assert result["test"]["top1"] == 100 * records[best]["env0_in_acc"]


def test_models_load_and_agree(kit, finished):
    images = load_domains("toys", kit.data)["cut"]
    evaluate = build_transforms("domainbed", 16).evaluate
    batch = torch.stack([evaluate(images.image(index)) for index in range(len(images))])
    best = load_model(finished / "best_iid.pkl")
    plain, facts = exported.load_model(finished)
    with torch.no_grad():
        torch.testing.assert_close(best(batch), plain(batch))
    assert facts["classes"] == list(kit.CLASSES)
    assert (facts["targets"], facts["method"], facts["image_size"]) == (["cut"], "core_tuning", 16)
    assert (facts["mean"], facts["std"]) == (
        best.featurizer.image_encoder.mean.flatten().tolist(),
        best.featurizer.image_encoder.std.flatten().tolist(),
    )


def test_the_accuracy_of_a_loaded_model_is_the_recorded_one(kit, finished):
    model = load_model(finished)
    images = load_domains("toys", kit.data)["cut"]
    evaluate = build_transforms("domainbed", 16).evaluate
    with torch.no_grad():
        logits = model(torch.stack([evaluate(images.image(i)) for i in range(len(images))]))
    correct = (logits.argmax(1) == torch.tensor(images.labels)).double()
    record = kit.records(finished)[-1]
    # 36 images: 29 in, 7 out.
    both = (29 * record["env1_in_acc"] + 7 * record["env1_out_acc"]) / 36
    assert correct.mean().item() == pytest.approx(both)


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint.pt"])
def test_inspect(finished, capsys, name):
    assert main(["inspect", str(finished / name)]) == 0
    out = capsys.readouterr().out
    assert "core-tuning" in out
    assert "use: --encoder small_resnet --pretrained" in out
    assert re.search(r"16, step \d", out)


def test_random_hyper_parameters_are_drawn_as_domainbed_draws(kit, tmp_path):
    run = kit.run(tmp_path, "--hparams_seed", 7, "--trial_seed", 3, "--steps", 1)
    hparams = kit.records(run)[0]["hparams"]
    # misc.seed_hash(7, 3), and with it the stream of the learning rate alone.
    stream = int(hashlib.md5(b"(1754140012, 'lr')").hexdigest(), 16) % 2**31
    assert hparams["lr"] == 10 ** np.random.RandomState(stream).uniform(-5, -3.5)
    assert (hparams["batch_size"], hparams["checkpoint"]) == (4, "embedded")
    assert hparams["eta"] in (0.1, 1.0, 10.0)


def test_stock_collect_results(kit, checkout, tmp_path):
    """DomainBed's own table, of a run that it believes to be of PACS."""
    domains = tmp_path / "data" / "PACS"
    for number, name in enumerate("ACPS"):
        shutil.copytree(kit.data / "toys" / list(kit.DOMAINS)[number % 3], domains / name)
    kit.run(tmp_path / "runs", "--dataset", "PACS", "--data_dir", tmp_path / "data",
            "--algorithm", "CETuning", "CoreTuning", "--test_envs", 0, "--steps", 2)  # fmt: skip
    script = [sys.executable, "-m", "domainbed.scripts.collect_results"]
    run = subprocess.run([*script, "--input_dir", tmp_path / "runs"], cwd=checkout,
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "Total records: 4" in run.stdout
    for algorithm, method in (("CETuning", "ce"), ("CoreTuning", "core_tuning")):
        record = kit.records(tmp_path / "runs" / f"{method}_target0_hparams0_seed0")[-1]
        assert re.search(rf"{algorithm} +{100 * record['env0_in_acc']:.1f} ", run.stdout)


def test_the_run_is_evaluated_on_its_target(kit, finished, capsys):
    """What `core-tuning evaluate` finds is what a plain loop finds on all images of the target."""
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--workers", "0"]) == 0
    said = capsys.readouterr().out
    model, _ = exported.load_model(finished)
    images = load_domains("toys", kit.data)["cut"]
    evaluate = build_transforms("domainbed", 16).evaluate
    with torch.no_grad():
        logits = model(torch.stack([evaluate(images.image(i)) for i in range(len(images))]))
    right = (logits.argmax(1) == torch.tensor(images.labels)).double().mean().item()
    assert f"test of toys (all images of cut), 36 images: top-1 {100 * right:.2f}%" in said
    assert main(["evaluate", str(finished), "--split", "train"]) == 2
    assert "--split is train" in capsys.readouterr().err
