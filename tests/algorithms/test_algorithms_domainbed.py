"""The real DomainBed: its own tests, sweeps by each route, saved models."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from core_tuning.algorithms import register
from core_tuning.cli import main

# ResNet-18 stands in for ResNet-50 at 224 pixels, which takes a CPU a minute longer.
OWN_TESTS = """
import sys, unittest
import torch
from core_tuning.algorithms import register
register()
from domainbed import algorithms, hparams_registry
algorithms.ALGORITHMS[:] = ["CETuning", "CECon", "CoreTuning", "ReleasedCoreTuning"]
original = hparams_registry._hparams
def smaller(*given):
    hparams = original(*given)
    if hparams["encoder"][0] == "resnet50":
        hparams["encoder"] = ("resnet18", "resnet18")
    return hparams
hparams_registry._hparams = smaller
if not torch.cuda.is_available():
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_: self
names = ["test_models", "test_hparams_registry", "scripts.test_sweep",
         "scripts.test_collect_results"]
tests = unittest.defaultTestLoader.loadTestsFromNames(f"domainbed.test.{n}" for n in names)
result = unittest.TextTestRunner(verbosity=2).run(tests)
sys.exit(not result.wasSuccessful())
"""
SWEEP = (
    "launch", "--datasets", "Debug28", "--algorithms", "CoreTuning", "--n_hparams", "1",
    "--n_trials", "1", "--steps", "2", "--data_dir", ".", "--command_launcher", "local",
    "--skip_confirmation", "--hparams", '{"batch_size": 8}',
)  # fmt: skip


def path_with(programs):
    return f"{programs}{os.pathsep}{os.environ['PATH']}"


def records(sweep):
    return [
        json.loads(line)
        for file in sorted(Path(sweep).glob("*/results.jsonl"))
        for line in file.read_text().splitlines()
    ]


def test_domainbeds_own_tests_pass_for_our_names(checkout, environment, run):
    done = run(environment / "python", "-c", OWN_TESTS, cwd=checkout, PATH=path_with(environment))
    assert done.returncode == 0, done.stdout[-3000:]
    for name in ("CoreTuning", "CECon", "CETuning"):
        for dataset in ("Debug28", "Debug224"):
            assert any(
                name in line and dataset in line and line.endswith("ok")
                for line in done.stdout.splitlines()
            ), (name, dataset)
    assert "TestSweep.test_make_args_list" in done.stdout
    assert "TestCollectResults.test_end_to_end" in done.stdout


def check_sweep(folder, run, checkout):
    assert len(list(folder.glob("*/done"))) == 6
    found = records(folder)
    assert {record["hparams"]["total_steps"] for record in found} == {2}
    assert {tuple(record["args"]["test_envs"]) for record in found} == {
        (0,), (1,), (2,), (0, 1), (0, 2), (1, 2),
    }  # fmt: skip
    stock = run(
        sys.executable, "-m", "domainbed.scripts.collect_results", "--input_dir", folder,
        cwd=checkout,
    )  # fmt: skip
    assert stock.returncode == 0, stock.stdout
    assert "leave-one-domain-out cross-validation" in stock.stdout
    assert [line for line in stock.stdout.splitlines() if line.startswith("CoreTuning")]
    assert " X " not in stock.stdout


def test_a_sweep_by_the_wrapper(checkout, run, tmp_path):
    out = tmp_path / "sweep"
    done = run(
        sys.executable, "-m", "core_tuning", "domainbed", "sweep", *SWEEP, "--output_dir", out,
        "--train-args", "--checkpoint_freq 1 --skip_model_save", "--workers", "0",
        DOMAINBED_ROOT=str(checkout),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    check_sweep(out, run, checkout)
    assert {record["step"] for record in records(out)} == {0, 1}
    assert not list(out.glob("*/model.pkl"))


def test_a_stock_sweep_with_the_hook(checkout, environment, run, tmp_path):
    out = tmp_path / "sweep"
    run(environment / "python", "-m", "core_tuning", "domainbed", "enable")
    done = run(
        environment / "python", "-m", "domainbed.scripts.sweep", *SWEEP, "--output_dir", out,
        cwd=checkout, PATH=path_with(environment),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    check_sweep(out, run, checkout)
    # The job folders are those of the wrapper, which leaves their names to DomainBed.
    assert len(list(out.glob("*/model.pkl"))) == 6


def test_a_sweep_whose_jobs_fail_lists_them(domainbed, capsys, tmp_path):
    (tmp_path / "broken.pt").write_text("no checkpoint")
    given = ("--hparams", '{"batch_size": 8, "checkpoint": "broken.pt"}', "--single_test_envs")
    sweep = ["domainbed", "sweep", *SWEEP, "--output_dir", "out", *given]
    assert main([*sweep, "--command_launcher", "dummy"]) == 0
    finished, unfinished, new = sorted(Path("out").iterdir())
    (finished / "done").touch()
    new.rmdir()
    capsys.readouterr()
    assert main(sweep) == 1
    listed = capsys.readouterr().err.splitlines()[-3:]
    assert "2 of 3 jobs left no 'done'" in listed[0]
    assert f"  {unfinished}: nothing in err.txt" in listed
    [failed] = [line for line in listed if line.startswith(f"  {new}: core-tuning: error: ")]
    assert "broken.pt" in failed


def test_both_routes_refuse_a_domain_that_cannot_fill_a_batch(checkout, environment, run):
    job = ("--dataset", "Debug28", "--algorithm", "ERM", "--output_dir", "out")
    sentence = "domain has 13 images to train on, fewer than the batch_size"
    python = environment / "python"
    done = run(
        python, "-m", "core_tuning", "domainbed", "train", *job, DOMAINBED_ROOT=str(checkout)
    )
    assert done.returncode == 2
    assert done.stdout.startswith("core-tuning: error: ERM on Debug28 with hparams_seed 0: the ")
    assert sentence.replace("domain", "domain 1") in done.stdout
    run(python, "-m", "core_tuning", "domainbed", "enable")
    plain = run(python, "-m", "domainbed.scripts.train", *job, cwd=checkout)
    assert plain.returncode == 1
    sentence = f"core-tuning: error: A {sentence}"
    assert plain.stdout.splitlines()[-1].startswith(sentence)
    assert (checkout / "out" / "err.txt").read_text().startswith(sentence)


@pytest.fixture
def kept_streams(monkeypatch):
    """Give back the streams that train.py replaces."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)


def test_a_saved_model_gives_the_same_accuracy(domainbed, kept_streams, tmp_path):
    arguments = ["--dataset", "EmojiDomains", "--algorithm", "CoreTuning", "--test_envs", "1"]
    given = json.dumps({"data_augmentation": False, "batch_size": 8, "resnet_dropout": 0.1})
    assert main(
        ["domainbed", "train", *arguments, "--steps", "3", "--hparams", given, "--workers", "0",
         "--output_dir", str(tmp_path)]
    ) == 0  # fmt: skip
    last = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[-1])
    saved = torch.load(tmp_path / "model.pkl", weights_only=True)
    assert saved["model_hparams"] == last["hparams"]

    register()
    algorithms, datasets, misc = (
        importlib.import_module(f"domainbed.{name}")
        for name in ("algorithms", "datasets", "lib.misc")
    )
    model = algorithms.get_algorithm_class("CoreTuning")(
        saved["model_input_shape"], saved["model_num_classes"], saved["model_num_domains"],
        saved["model_hparams"],
    )  # fmt: skip
    model.load_state_dict(saved["model_dict"])
    data = datasets.EmojiDomains(None, [1], saved["model_hparams"])
    for index, domain in enumerate(data):
        held_out, _ = misc.split_dataset(domain, int(len(domain) * 0.2), misc.seed_hash(0, index))
        loader = torch.utils.data.DataLoader(held_out, batch_size=64)
        assert misc.accuracy(model, loader, None, "cpu") == last[f"env{index}_out_acc"]


def test_stock_algorithms_run_on_emoji_from_a_checkpoint(domainbed, kept_streams, tmp_path):
    given = json.dumps({"checkpoint": "embedded", "batch_size": 8})
    assert main(
        ["domainbed", "train", "--dataset", "EmojiDomains", "--algorithm", "CORAL", "--steps", "1",
         "--hparams", given, "--workers", "0", "--output_dir", str(tmp_path)]
    ) == 0  # fmt: skip
    saved = torch.load(tmp_path / "model.pkl", weights_only=True)
    assert "featurizer.image_encoder.encoder.conv1.weight" in saved["model_dict"]
    assert saved["model_hparams"]["lr"] == 1e-3
