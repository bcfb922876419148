"""Mistakes on the command line: one sentence and exit code 2, and nothing written."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from core_tuning.robustness.attack import autoattack, pgd
from core_tuning.robustness.config import RobustEvaluate


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--l2", "-0.5"), "eps is -0.5"),
        (("--linf", "8/0"), "eps is '8/0'"),
        (("--linf", "-8/255"), "eps is -8/255"),
        (("--linf", "8"), "larger than the range"),
        (("--l2", "28"), "at most 27.7128 apart"),
        (("--l2", "0"), "one is 0, which is clean accuracy"),
        (("--l2", "--linf"), "No eps is left"),
        (("--norm", "l3"), "--norm: invalid choice: 'l3'"),
        (("--norm", "l2", "--linf", "0.1"), "leaves that norm out"),
        (("--attacks", "autoatack"), "--attacks: invalid choice: 'autoatack'"),
        (("--n", "19"), "--n is 19 and the split has 18 images"),
        (("--n", "0"), "--n is '0'"),
        (("--n", "some"), "--n is 'some'"),
        (("--batch-size", "0"), "--batch-size is 0"),
        (("--workers", "-1"), "--workers is -1"),
        (("--seed", "-1"), "--seed is -1"),
        (("--square-queries", "0"), "--square-queries is 0"),
        (("--split", "train"), "--split"),
        (("--resume", "--overwrite"), "choose one of them"),
        (("--normalisation", "imagenet"), "normalises already"),
        (("--module", "my.py:f"), "Two models are given"),
        (("--data-dir", "gone"), "gone"),
        (("--dataset", "cifra10"), "did you mean 'cifar10'?"),
        (("--l2", "nan"), "eps is nan"),
        (("--l2", "0.5", "inf"), "eps is inf"),
        (("--l2", "1e400"), "eps is 1e400"),
        (("--linf", "1/1e-400"), "eps is '1/1e-400'"),
        (("--linf", "nan/255"), "eps is nan/255"),
        (("--l2", "0,5"), "eps is '0,5'"),
        (("--l2", ""), "eps is ''"),
        (("--l2", "1e-46"), "a number of at least 1e-12"),
        (("--linf", "8/255/2"), "eps is '8/255/2'"),
        (("--n", "-1"), "--n is '-1'"),
        (("--n", "1e3"), "--n is '1e3'"),
        (("--n", "1000000000000"), "--n is 1000000000000 and the split has 18 images"),
        (("--n", "9" * 5000), "expected a number of at least 1, or all"),
        (("--n", "0.5"), "--n is '0.5'"),
        (("--seed", str(2**63)), f"--seed is {2**63}: expected at least 0, below"),
        (("--seed", str(2**64)), f"--seed is {2**64}"),
        (("--seed", "0.5"), "--seed: invalid int value: '0.5'"),
        (("--batch-size", "-3"), "--batch-size is -3"),
        (("--batch-size", "1000000000000"), "--batch-size is 1000000000000"),
        (("--batch-size", "all"), "--batch-size: invalid int value"),
        (("--workers", "1000000"), "--workers is 1000000"),
        (("--square-queries", "-5"), "--square-queries is -5"),
        (("--square-queries", "1000000000000"), "--square-queries is 1000000000000"),
        (("--image-size", "0"), "--image-size is 0"),
        (("--image-size", "1000000"), "--image-size is 1000000: expected at least 1"),
        (("--attack-space", "pixels"), "--attack-space: invalid choice"),
        (("--device", "tpu"), "--device: invalid choice"),
        (("--attacks",), "--attacks: expected at least one argument"),
        (("--attacks", "pgd10", "everything"), "--attacks: invalid choice: 'everything'"),
        (("--norm",), "--norm: expected at least one argument"),
        (("--steps", "10"), "unrecognized arguments: --steps 10"),
        (("--encoder", "resnet18"), "--encoder is given"),
        (("--transforms", "small"), "--transforms is given"),
        (("--module", "my.py"), "Two models are given"),
    ],
)
def test_options(kit, run, capsys, options, said):
    before = sorted(run.iterdir())
    assert said in kit.refused(capsys, "robust", "evaluate", run, "--workers", 0, *options)
    assert sorted(run.iterdir()) == before


def test_no_model_or_none_there(kit, tmp_path, capsys):
    for path in ("a" * 300, "a/" * 3000):
        assert "does not exist" in kit.refused(capsys, "robust", "evaluate", path)
    assert "has a NUL in it" in kit.refused(capsys, "robust", "evaluate", "nul\0l")
    assert "No model is given" in kit.refused(capsys, "robust", "evaluate")
    gone = tmp_path / "gone"
    assert "does not exist" in kit.refused(capsys, "robust", "evaluate", gone)
    (tmp_path / "notes.txt").write_text("hello")
    error = kit.refused(capsys, "robust", "evaluate", tmp_path / "notes.txt")
    assert "not a PyTorch checkpoint" in error
    torch.save({"fc.weight": torch.zeros(3, 3)}, tmp_path / "c.pth")
    error = kit.refused(capsys, "robust", "evaluate", tmp_path / "c.pth")
    assert "give --encoder, --dataset and --normalisation" in error


def test_other_classes(kit, run, capsys, write_folder, tmp_path):
    other = write_folder(tmp_path / "other", {"train": 2, "val": 2}, classes=("ant", "wasp"))
    error = kit.refused(capsys, "robust", "evaluate", run, "--workers", 0, "--data-dir", other)
    assert "are not the model's" in error


def test_a_module_of_another_number_of_classes(kit, run, capsys, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 7))\n"
    )
    error = kit.refused(
        capsys, "robust", "evaluate", "--module", f"{tmp_path / 'own.py'}:build", "--dataset",
        "folder", "--data-dir", run.parent / "data", "--image-size", 8, "--workers", 0,
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "The model has 7 classes and the data set has 2" in error
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_free(kit, run, evaluate, capsys):
    evaluate()
    evaluation = ("robust", "evaluate", run, "--workers", 0)
    assert "--resume" in kit.refused(capsys, *evaluation)
    # --overwrite must not cost somebody a run.
    error = kit.refused(capsys, *evaluation, "--output", run, "--overwrite")
    assert "holds a run, not an evaluation" in error
    data = run.parent / "data"
    assert "is not a run's" in kit.refused(capsys, *evaluation, "--output", data, "--overwrite")
    assert "seed = 0, not 1" in kit.refused(
        capsys, *evaluation, "--resume", "--seed", 1, "--batch-size", 5
    )
    assert (run / "model.safetensors").exists()


def test_resume_after_an_image_was_replaced(kit, run, evaluate, capsys):
    """As many images as before, so that the options are equal."""
    evaluate()
    image = run.parent / "data/val/ant/0000.png"
    image.rename(image.with_name("9999.png"))
    error = kit.refused(
        capsys, "robust", "evaluate", run, "--workers", 0, "--l2", "0.3", "--linf", "2/255",
        "--attacks", "pgd10", "--batch-size", 5, "--no-masking-checks", "--resume",
    )  # fmt: skip
    assert "robustness was started with other images: each class has as many images" in error


def test_missing_packages_name_the_extra(kit, run, capsys, monkeypatch):
    monkeypatch.setattr(autoattack.importlib.util, "find_spec", lambda name: None)
    evaluation = ("robust", "evaluate", run, "--workers", 0)
    assert "pip install 'core-tuning[robustness]'" in kit.refused(capsys, *evaluation)

    def missing(name):
        raise pgd.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(pgd.importlib.metadata, "version", missing)
    error = kit.refused(capsys, *evaluation)
    assert "torchattacks" in error and "pip install 'core-tuning[robustness]'" in error


def test_images_too_small_for_square(kit, run, capsys, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "def build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 2))\n"
    )
    error = kit.refused(
        capsys, "robust", "evaluate", "--module", f"{tmp_path / 'own.py'}:build", "--dataset",
        "folder", "--data-dir", run.parent / "data", "--image-size", 4, "--workers", 0,
        "--transforms", "small", "--output", tmp_path / "out",
    )  # fmt: skip
    assert "leave autoattack and square out of --attacks" in error


def test_defaults_are_table_9s(run):
    def budgets(*given):
        return RobustEvaluate.read("robust evaluate", [str(run), *given]).budgets()

    expected = [("l2", 0.5), ("l2", 1.5), ("l2", 2.5)]
    expected += [("linf", 2 / 255), ("linf", 4 / 255), ("linf", 8 / 255)]
    assert budgets() == expected
    assert budgets("--linf") == expected[:3]
    assert budgets("--norm", "linf") == expected[3:]
    assert budgets("--l2", "1", "1.0", "--linf") == [("l2", 1.0)]


def test_help_does_not_wait_for_torch():
    program = (
        "import sys\nfrom core_tuning.cli import main\n"
        "try:\n    main(['robust', 'evaluate', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--attack-space" in done.stdout and done.stdout.rstrip().endswith("False")
