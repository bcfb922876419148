"""Every mistake is one sentence with exit code 2, and leaves nothing behind."""

from __future__ import annotations

import json

import pytest
import torch

from core_tuning.algorithms.algorithm import CLASSES
from core_tuning.algorithms.hyperparameters import random_hparams
from core_tuning.algorithms.names import seed_hash
from core_tuning.errors import UserError

OPTIONS = {
    "an unknown algorithm": (["--algorithm", "CoreTunning"], "did you mean 'CoreTuning'?"),
    "another case": (["--algorithm", "cecon"], "did you mean 'CECon'?"),
    "DomainBed's": (["--algorithm", "ERM"], "'core-tuning domainbed train'"),
    "an algorithm twice": (["--algorithm", "CECon", "CECon"], "--method names"),
    "an unknown data set": (["--dataset", "toy"], "'toy' is none of EmojiDomains, VLCS, PACS"),
    "a data set's case": (["--dataset", "pacs"], "did you mean 'PACS'?"),
    "no folder of the data set": (["--dataset", "PACS"], "PACS does not exist"),
    "a missing folder": (["--data_dir", "/nowhere"], "The folder /nowhere does not exist"),
    "the data set's own folder": (
        ["--data-dir", "{data}/toys"],
        "the folder of toys itself: give its parent, {data}",
    ),
    "target out of range": (["--test_envs", "3"], "expected one of 0 brush, 1 cut, 2 dots"),
    "all targets": (["--test_envs", "0", "1", "2"], "leave one or more to train on"),
    "a target twice": (["--test_envs", "1", "1"], "one twice"),
    "no numbers": (["--test_envs", "cut"], "expected numbers of domains, 'all' or 'pairs'"),
    "a word among numbers": (["--test_envs", "0", "all"], "--test-envs is '0 all'"),
    "a negative target": (["--test_envs", "-1"], "--test-envs"),
    "no JSON": (["--hparams", "{eta: 1}"], "--hparams is '{eta: 1}'"),
    "a JSON list": (["--hparams", "[1]"], "expected a JSON object"),
    "no steps": (["--steps", "0"], "--steps is 0: expected at least 1"),
    "half a step": (["--steps", "0.5"], "argument --steps: invalid int value: '0.5'"),
    "no evaluations": (["--eval-every", "0"], "--eval-every is 0: expected at least 1"),
    "nothing held out": (["--holdout_fraction", "0"], "expected above 0, below 1"),
    "all held out": (["--holdout_fraction", "1"], "expected above 0, below 1"),
    "no number held out": (["--holdout_fraction", "nan"], "--holdout-fraction is nan"),
    "too little held out": (["--holdout_fraction", "0.01"], "30 images of domain brush into 30"),
    "a negative seed": (["--seeds", "-1"], "--seeds is -1"),
    "a seed beyond torch": (["--seeds", str(2**63)], "below 2^63"),
    "both lengths": (["--epochs", "2"], "--steps is 5 and --epochs is 2: give one of them"),
    "a value twice": (["--batch-size", "8"], "batch_size is 8 and in --hparams 4: give it once"),
    "an option of another method": (
        ["--method", "ce", "--eta", "1"],
        "--eta is given with --method ce, which does not have it",
    ),
    "a trial beyond torch": (["--trial_seed", str(2**70)], "below 2^63"),
    "a negative trial": (["--trial_seed", "0", "-3"], "--seeds is -3"),
    "a trial twice": (["--trial_seed", "0", "0"], "--seeds is [0, 0]: expected different"),
    "negative hparams_seed": (["--hparams_seed", "-1"], "--hparams-seed is -1"),
    "no pixels": (["--image-size", "0"], "--image-size is 0: expected at least 1"),
    "negative workers": (["--workers", "-1"], "--workers is -1"),
    "negative memory": (["--memory", "-1"], "--memory is -1.0"),
    "minutes not a number": (["--checkpoint-minutes", "nan"], "--checkpoint-minutes is nan"),
    "steps without end": (["--steps", str(10**12)], "--steps is 1000000000000: expected at least"),
    "huge images": (["--image-size", str(10**9)], "at most 4,096"),
    "a million workers": (["--workers", str(10**6)], "--workers is 1000000: expected at least 0"),
    "infinite memory": (["--memory", "inf"], "--memory is inf"),
    "resume and overwrite": (["--resume", "--overwrite"], "exclude each other"),
    "an unknown option": (["--learning-rate", "1"], "unrecognized arguments: --learning-rate"),
    "an abbreviation": (["--step", "1"], "unrecognized arguments: --step"),
    "domain adaptation": (["--task", "domain_adaptation"], "invalid choice"),
    "an unknown device": (["--device", "tpu"], "invalid choice"),
}
HPARAMS = {
    "an unknown name": ({"bach_size": 3}, "did you mean 'batch_size'?"),
    "a network of DomainBed's": ({"resnet18": True}, "name one with 'encoder'"),
    "text": ({"lr": "x"}, "lr is 'x': expected a number"),
    "a fraction": ({"batch_size": 4.0}, "batch_size is 4.0: expected an integer"),
    "true for a number": ({"lr": True}, "lr is True: expected a number"),
    "a number for true": ({"freeze_bn": 1}, "freeze_bn is 1: expected true or false"),
    "lr 0": ({"lr": 0}, "lr is 0: expected above 0"),
    "lr_decay NaN": ({"lr_decay": float("nan")}, "lr_decay is nan"),
    "all dropped": ({"resnet_dropout": 1.0}, "resnet_dropout is 1.0"),
    "negative weight decay": ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    "an empty batch": ({"batch_size": 0}, "batch_size is 0: expected at least 1"),
    "a batch too large": ({"batch_size": 30}, "domain cut has 29 images, fewer than a batch of 30"),
    "no checkpoint": ({"checkpoint": ""}, "--pretrained is missing for toys"),
    "a missing checkpoint": ({"checkpoint": "gone.pth"}, "The file gone.pth does not exist"),
    "no file's name": ({"checkpoint": "a\0b"}, "embedded null byte"),
    "a device": ({"checkpoint": "/dev/zero"}, "/dev/zero is a pipe, a socket or a device"),
    "an encoder of other images": (
        {"checkpoint": "random", "encoder": "timm:vit_tiny_patch16_224"},
        "The encoder fails on images of 16x16 pixels (Input height (16) doesn't match model "
        "(224)): pass --image-size 224",
    ),
    "an unknown encoder": ({"encoder": "resnet51"}, "did you mean 'resnet50'?"),
    "another encoder": ({"encoder": "resnet18"}, "does not fit the encoder, a ResNet-18"),
    "negative eta": ({"eta": -1}, "eta is -1"),
    "alpha 0": ({"alpha": 0}, "alpha is 0"),
    "temperature 0": ({"temperature": 0}, "temperature is 0"),
    "lambda_n above 1": ({"lambda_n": 1.5}, "lambda_n is 1.5"),
    "an unknown variant": ({"variant": "new"}, "no hyper-parameter 'variant'"),
    "lr beyond float32": ({"lr": 1e300}, "lr is 1e+300: expected above 0, at most 1e+30"),
    "weight decay beyond float32": ({"weight_decay": 1e300}, "weight_decay is 1e+300"),
    "a huge projection": ({"projection_dim": 10**12}, "projection_dim is 1000000000000: expected"),
    "a huge batch": ({"batch_size": 10**12}, "batch_size is 1000000000000: expected"),
    "steps beyond int64": ({"total_steps": 10}, "give the length of the run by --steps"),
    "no projection": ({"projection_depth": 0}, "projection_depth is 0"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(kit, tmp_path, capsys, name):
    options, expected = OPTIONS[name]
    options = [word.replace("{data}", str(kit.data)) for word in options]
    expected = expected.replace("{data}", str(kit.data))
    output = tmp_path / "runs" / "output"
    assert expected in kit.sentence(capsys, kit.argv(output, *options))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HPARAMS)
def test_hyper_parameters(kit, tmp_path, capsys, name):
    hparams, expected = HPARAMS[name]
    output = tmp_path / "runs" / "output"
    assert expected in kit.sentence(capsys, kit.argv(output, **hparams))
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_on_a_real_data_set(kit, tmp_path, capsys, monkeypatch):
    """The default has none; the environment variable gives one."""
    monkeypatch.delenv("CORE_TUNING_CHECKPOINT", raising=False)
    options = ("--hparams", json.dumps({"batch_size": 4}))
    sentence = kit.sentence(capsys, kit.argv(tmp_path, *options))
    assert "CORE_TUNING_CHECKPOINT" in sentence
    monkeypatch.setenv("CORE_TUNING_CHECKPOINT", "elsewhere.pth")
    assert "The file elsewhere.pth does not exist" in kit.sentence(
        capsys, kit.argv(tmp_path, *options)
    )
    assert list(tmp_path.iterdir()) == []


def test_no_data_dir(kit, tmp_path, capsys):
    for dataset, expected in [
        ("toys", "'toys' is none of EmojiDomains"),
        ("VLCs", "did you mean 'VLCS'?"),
        ("OfficeHome", "name the folder that holds office_home/"),
    ]:
        argv = ["dg", "--dataset", dataset, "--output_dir", str(tmp_path)]
        sentence = kit.sentence(capsys, argv)
        assert expected in sentence
        assert "--data_dir" in sentence


def test_bad_folders_of_images(kit, tmp_path, capsys):
    output = tmp_path / "output"
    bad = kit.write_domains(tmp_path / "bad", {"a": 6, "b": 6})
    argv = kit.argv(output, "--dataset", "bad", "--data_dir", tmp_path)
    (bad / "b" / "ant").rename(bad / "b" / "wasp")
    assert "lacks 'ant' and has 'wasp' besides" in kit.sentence(capsys, argv)
    (bad / "b" / "wasp").rename(bad / "b" / "ant")
    broken = bad / "a" / "bee" / "000.png"
    broken.write_bytes(broken.read_bytes()[:60])
    for workers in (0, 1):
        for memory in (1, 0):
            argv = kit.argv(output, "--dataset", "bad", "--data_dir", tmp_path, "--overwrite",
                            "--workers", workers, "--memory", memory)  # fmt: skip
            assert f"The image {broken} cannot be read" in said(capsys, argv)
    assert not (output / "done").exists()


def said(capsys, argv):
    """The refusal of a run that had begun: below its progress."""
    from core_tuning.cli import main

    capsys.readouterr()
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def test_taken_folders(kit, finished, tmp_path, capsys):
    before = kit.stamps(finished)
    sentence = kit.sentence(capsys, kit.argv(finished, "--test_envs", 1))
    assert "--resume" in sentence and "--overwrite" in sentence
    # An option that the sentence names must exist.
    kit.sentence(capsys, [*kit.argv(tmp_path), "--output", str(finished), "--test_envs", "1"])
    assert kit.stamps(finished) == before
    (tmp_path / "file").write_text("mine")
    assert "is a file" in kit.sentence(capsys, kit.argv(tmp_path / "file" / "runs"))


def test_what_fails_late_is_found_before_the_first_run(kit, tmp_path, capsys):
    """The random batch of the second seed is one that a domain is too small for."""
    sizes = {
        seed: random_hparams("CoreTuning", "toys", seed_hash(seed, 0))["batch_size"]
        for seed in range(1, 30)
    }
    options = ("--hparams_seed", min(sizes, key=sizes.get), max(sizes, key=sizes.get),
               "--hparams", '{"checkpoint": "embedded"}')  # fmt: skip
    sentence = kit.sentence(capsys, kit.argv(tmp_path, *options))
    assert f"fewer than a batch of {max(sizes.values())}" in sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu(kit, tmp_path, capsys):
    assert "--device cpu" in kit.sentence(capsys, kit.argv(tmp_path, "--device", "cuda"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CLASSES)
def test_images_of_one_channel(name):
    with pytest.raises(UserError, match=f"have 1 channels: {name} fine-tunes encoders of RGB"):
        CLASSES[name]((1, 28, 28), 10, 2, {"checkpoint": "embedded"})
