"""Mistakes on the command line of `core-tuning robust train`: one sentence, exit code 2."""

from __future__ import annotations

import importlib.metadata

import pytest

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.robustness.adversary import adversarial
from core_tuning.robustness.config import RobustTrain
from core_tuning.training.build import image_size


def parse(argv):
    return RobustTrain.read("core-tuning robust train", argv)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--eps", "8/0"), "eps is '8/0'"),
        (("--eps", "-1"), "eps is -1"),
        (("--eps", "nan"), "eps is nan"),
        (("--eps", "strong"), "eps is 'strong'"),
        (("--eps", "inf"), "eps is inf"),
        (("--eps", "1e400"), "eps is 1e400"),
        (("--eps", "-8/255"), "eps is -8/255"),
        (("--eps", "8/255/2"), "eps is '8/255/2'"),
        (("--eps", ""), "eps is ''"),
        (("--eps", "0x8"), "eps is '0x8'"),
        (("--eps", "1e-46"), "a number of at least 1e-12"),
        (("--eps", "8"), "eps is 8 in the l2 norm, above 0.554, 2% of sqrt(3hw) at 16x16 pixels"),
        (("--norm", "linf", "--eps", "33/255"), "above 32/255 at 16x16 pixels: expected images"),
        (("--norm", "linf", "--eps", "0.5"), "give --allow-large-eps if it is meant"),
        (("--allow-large-eps", "--norm", "linf", "--eps", "8"), "larger than the range"),
        (("--norm", "L2"), "--norm: invalid choice: 'L2'"),
        (("--step-size", "nan"), "The step size is nan"),
        (("--step-size", "-1"), "The step size is -1"),
        (("--step-size", "1/0"), "The step size is '1/0'"),
        (("--step-size", "1e300"), "step size is 1e+300"),
        (("--attack-steps", "-1"), "attack steps is -1"),
        (("--attack-steps", "1.5"), "--attack-steps: invalid int value: '1.5'"),
        (("--adv-weight", "nan"), "--adv-weight is nan"),
        (("--eps-warmup", "nan", "0"), "--eps-warmup is nan"),
        (("--eps-warmup", "0"), "--eps-warmup is 0.0: expected two numbers"),
        (("--norm", "linf", "--eps", "8"), "larger than the range"),
        (("--norm", "l3"), "--norm: invalid choice: 'l3'"),
        (("--step-size", "0"), "step size is 0"),
        (("--attack-steps", "0"), "attack steps is 0: expected 1 to 10000"),
        (("--attack-steps", "1000000000"), "attack steps is 1000000000"),
        (("--steps", "1000"), "--steps is 1000 and --epochs is 1: give one of them"),
        (("--steps",), "argument --steps: expected one argument"),
        (("--adv-weight", "1.5"), "--adv-weight is 1.5"),
        (("--adv-weight", "0.9", "--adversarial-only"), "no clean half"),
        (("--eps-warmup", "0", "1"), "stay below the 1 epochs"),
        (("--eps-warmup", "-1", "0"), "--eps-warmup is -1"),
        (("--ema", "1"), "--ema is 1.0"),
        (("--attack-precision", "fp16"), "--attack-precision is 'fp16' with --precision fp32"),
        (("--method", "released", "--adv-weight", "0.9"), "released, which has no weights"),
    ],
)  # fmt: skip
def test_refused(arguments, capsys, tmp_path, options, named):
    assert main(arguments(*options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ") and error.count("\n") == 1
    assert named in error
    assert not (tmp_path / "run").exists()


def test_few_steps_may_be_meant_for_the_attack():
    with pytest.raises(UserError, match="--steps is 99, the length of training: give the steps of"):
        parse(["--steps", "99"])
    assert parse(["--steps", "100"]).steps == 100
    both = parse(["--steps", "7", "--attack-steps", "3"])
    assert (both.steps, both.attack_steps) == (7, 3)


def test_torchattacks_missing(arguments, capsys, monkeypatch, tmp_path):
    version = importlib.metadata.version

    def missing(name):
        if name == "torchattacks":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert main(arguments()) == 2
    assert "pip install 'core-tuning[robustness]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_l2_eps_that_no_image_can_use(arguments, capsys, tmp_path):
    """The largest distance depends on the image size: sqrt(3 16 16) = 27.7."""
    pytest.importorskip("torchattacks")
    assert main(arguments("--eps", "28")) == 2
    assert "at most 27.7" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_budget_is_printed_first(train, capsys):
    train("--step-size", "0.25")
    assert capsys.readouterr().out.splitlines()[0] == (
        "attack: l2 norm, eps 0.5 on images in [0, 1]; 2 steps of PGD of size 0.25 from a random "
        "start"
    )
    train("--norm", "linf", "--eps", "8/255", output="linf")
    assert "linf norm, eps 8/255 on" in capsys.readouterr().out.splitlines()[0]


def test_a_large_eps_that_is_meant(train):
    assert train("--eps", "0.6", "--allow-large-eps").result["adversarial"]["eps"] == 0.6
    at_the_border = train("--norm", "linf", "--eps", "32/255", output="border")
    assert at_the_border.result["adversarial"]["eps_text"] == "32/255"


@pytest.mark.parametrize(
    ("options", "sides"),
    [
        # Table 9 at CIFAR's 256 pixels, Table 14 at 224, and the defaults on the embedded data.
        (("--dataset", "cifar10", "--eps", "2.5"), 256),
        (("--dataset", "pets", "--eps", "2.5"), 224),
        (("--dataset", "pets", "--norm", "linf", "--eps", "8/255"), 224),
        ((), 48),
        (("--norm", "linf"), 48),
    ],
)
def test_the_papers_budgets_need_no_option(options, sides):
    pytest.importorskip("torchattacks")
    parsed = parse(list(options))
    assert image_size(parsed) == sides
    adversarial(parsed)


def test_runs_that_differ_have_folders_that_differ():
    """By default, so that none overwrites another."""
    lines = ([], ["--method", "released"], ["--method", "ce"], ["--norm", "linf"], ["--eps", "1"])
    folders = {str(parse(line).output) for line in lines}
    assert len(folders) == len(lines)
    assert "runs/emoji_domains-at_released-l2-0.5" in folders


def test_a_bad_image_is_refused_before_a_run_folder_is_made(arguments, data, tmp_path, capsys):
    (data / "train/ant/x.png").write_text("not an image")
    assert main(arguments()) == 2
    assert "train/ant/x.png (it is not an image of a known format)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
