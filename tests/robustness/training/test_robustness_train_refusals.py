"""Mistakes on the command line of `core-tuning robust train`: one sentence, exit code 2."""

from __future__ import annotations

import importlib.metadata

import pytest

from core_tuning.cli import main
from core_tuning.robustness.train_options import parse


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--eps", "8/0"), "eps is '8/0'"),
        (("--eps", "-1"), "eps is -1"),
        (("--eps", "nan"), "eps is nan"),
        (("--eps", "strong"), "eps is 'strong'"),
        (("--norm", "linf", "--eps", "8"), "larger than the range"),
        (("--norm", "l3"), "norm is 'l3'"),
        (("--step-size", "0"), "step size is 0"),
        (("--steps", "0"), "attack steps is 0"),
        (("--adv-weight", "1.5"), "--adv-weight is 1.5"),
        (("--adv-weight", "0.9", "--adversarial-only"), "no clean half"),
        (("--eps-warmup", "0", "1"), "stay below the 1 epochs"),
        (("--eps-warmup", "-1", "0"), "--eps-warmup is -1 0"),
        (("--ema", "1"), "--ema is 1.0"),
        (("--attack-precision", "fp16"), "--attack-precision is 'fp16' with --precision fp32"),
        (("--method", "core_tuning", "--variant", "released", "--adv-weight", "0.9"),
         "--variant released"),
    ],
)  # fmt: skip
def test_refused(arguments, capsys, tmp_path, options, named):
    assert main(arguments(*options)) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ") and error.count("\n") == 1
    assert named in error
    assert not (tmp_path / "run").exists()


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


def test_runs_that_differ_have_folders_that_differ():
    """By default, so that none overwrites another."""
    lines = ([], ["--variant", "released"], ["--method", "ce"], ["--norm", "linf"], ["--eps", "1"])
    folders = {str(parse(line).output) for line in lines}
    assert len(folders) == len(lines)
    assert "runs/emoji_domains-at_core_tuning-released-l2-0.5" in folders


def test_a_bad_image_is_refused_before_a_run_folder_is_made(arguments, data, tmp_path, capsys):
    (data / "train/ant/x.png").write_text("not an image")
    assert main(arguments()) == 2
    assert "train/ant/x.png (it is not an image of a known format)" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
