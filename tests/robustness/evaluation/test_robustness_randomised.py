"""A model that answers the same image differently each time is found, named, and attacked so."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.robustness.own_module import OwnModule
from core_tuning.robustness.protocols import EOT_PASSES, choose_protocol
from core_tuning.robustness.subject import inspect_answers


class Noisy(nn.Module):
    """A linear classifier behind something random, or not."""

    def __init__(self, change):
        super().__init__()
        self.change = change
        self.fc = nn.Linear(48, 4)
        with torch.no_grad():
            self.fc.weight.copy_(torch.linspace(-1, 1, 192).view(4, 48))
        self.eval()

    def forward(self, images):
        return self.fc(self.change(images).flatten(1))


class Kept(nn.Dropout):
    """Monte Carlo dropout, whose mode eval() does not reach."""

    def train(self, mode=True):
        return super().train(True)


def resized(images):
    side = int(torch.randint(2, 4, ()))
    return nn.functional.interpolate(nn.functional.interpolate(images, side), 4)


def counted():
    calls = []

    def change(images):
        calls.append(None)
        return images * (1 + len(calls) % 2)

    return change


def own_generator():
    generator = torch.Generator().manual_seed(0)
    return lambda images: images + 0.1 * torch.rand(images.shape, generator=generator)


RANDOM = {
    "dropout": lambda images: nn.functional.dropout(images, 0.2, training=True),
    "kept dropout": Kept(0.2).train(),
    "noise": lambda images: images + 0.01 * torch.randn_like(images),
    "resize": resized,
    "python": lambda images: images * random.random(),
    "numpy": lambda images: images * float(np.random.random()),
    "its own generator": own_generator(),
    "every other call": counted(),
}
SAME = {
    "nothing": lambda images: images,
    "reseeded": lambda images: (
        images + torch.rand(images.shape, generator=torch.Generator().manual_seed(3))
    ),
    "rounding": lambda images: images + 1e-7 * torch.randn_like(images),
    "no scale": lambda images: 0 * images,
}


@pytest.fixture
def images():
    return torch.rand(16, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*RANDOM, *SAME])
def test_random_models_are_told_from_others(images, name):
    model = OwnModule(Noisy({**RANDOM, **SAME}[name]), "own.py:f").eval()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    found = inspect_answers(model, images, 4)
    assert found.is_randomised == (name in RANDOM)
    assert found.passes == 5 and found.images == 16
    assert found.changed <= 100 * found.is_randomised
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_how_far_answers_differ_is_counted(images):
    """Logits of the two kinds of call are (1, 0) and (0, 1): all classes change, by sqrt 4."""
    calls = []

    def flip(images):
        calls.append(None)
        return torch.eye(2)[len(calls) % 2].expand(len(images), 2) + 0 * images.sum()

    class Flips(nn.Module):
        forward = staticmethod(flip)

    found = inspect_answers(Flips().eval(), images, 2)
    assert found.changed == 100 and found.difference == pytest.approx(2)


def test_logits_that_are_not_finite_are_refused(images):
    with pytest.raises(UserError, match="not finite"):
        inspect_answers(Noisy(lambda images: images / 0), images, 4)


def test_the_rand_version_is_autoattacks_own(kit, monkeypatch):
    seen = []

    def record(self, images, labels, **options):
        limits = self.apgd.eot_iter, self.apgd.n_restarts, self.apgd.n_iter
        seen.append((self.version, self.attacks_to_run, *limits))
        return images, labels

    monkeypatch.setattr(AutoAttack, "run_standard_evaluation", record)
    protocol = choose_protocol("autoattack", 10, is_randomised=True)
    assert protocol.title == "AutoAttack rand (20 passes)"
    model = kit.Tiny(10).eval()
    for stage in protocol.stages:
        stage.attack(model, *kit.coloured(2, 2), "linf", 0.1, 0)
    official = AutoAttack(model, eps=0.1, version="rand").attacks_to_run
    assert seen == [("rand", [name], EOT_PASSES, 1, 100) for name in official]
    assert [stage.cost for stage in protocol.stages] == [2 * 100 * EOT_PASSES] * 2


@pytest.mark.parametrize(("classes", "attacks"), [(3, ["apgd-ce", "apgd-dlr"]), (2, ["apgd-ce"])])
def test_the_rand_version_of_few_classes(classes, attacks):
    protocol = choose_protocol("autoattack", classes, is_randomised=True)
    assert [stage.name for stage in protocol.stages] == attacks
    assert ("apgd-ce alone" in protocol.note) == (classes == 2)


SOURCE = """
import torch
from torch import nn
class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.fc = nn.Linear(192, 2)
    def forward(self, images):
        noise = torch.randn_like(images)
        return self.fc((images + 0.5 * noise).flatten(1))
def build(): return Noisy()
"""


def test_the_report_begins_with_it(run, tmp_path, evaluate, capsys, quick_auto_attack):
    (tmp_path / "own.py").write_text(SOURCE)
    subject = ("--module", f"{tmp_path / 'own.py'}:build", "--dataset", "folder", "--data-dir",
               run.parent / "data", "--image-size", 8, "--transforms", "small")  # fmt: skip

    def measured(output):
        return evaluate("--n", 5, "--linf", "--square-queries", 3, subject=subject,
                        attacks=("pgd10", "square", "autoattack"), output=output)  # fmt: skip

    report = measured(tmp_path / "out")
    sentence = "The model is randomised: 5 forward passes of the same 5 images differ"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"note: {sentence}")
    said = next(number for number, line in enumerate(printed) if line.startswith(sentence))
    assert said < next(number for number, line in enumerate(printed) if "test of folder" in line)
    text = (tmp_path / "out" / "report.md").read_text().split("\n\n")
    assert text[1].startswith(sentence) and "without EOT" in text[1]
    assert report["randomness"]["is_randomised"] and report["randomness"]["changed"] > 0
    pgd, square, auto = report["rows"]
    assert auto["title"] == "AutoAttack rand (20 passes)"
    assert all(row["warnings"] == [] for row in (pgd, square, auto))
    # Drawn from --seed: another process finds the same.
    again = measured(tmp_path / "again")
    assert again["clean"] == report["clean"]
    assert [row["correct"] for row in again["rows"]] == [row["correct"] for row in report["rows"]]


def test_a_run_is_not_randomised(evaluate, run, capsys):
    report = evaluate("--n", 6, "--linf")
    assert report["randomness"] == {
        "is_randomised": False, "passes": 5, "images": 6, "difference": 0.0, "changed": 0.0,
    }  # fmt: skip
    assert "is randomised" not in capsys.readouterr().out
    assert "is randomised" not in (run / "robustness" / "report.md").read_text()


def test_it_is_found_among_masking_checks_too(run, tmp_path, capsys, monkeypatch):
    """They run on a model with modules in training mode, which perturb refuses elsewhere."""
    monkeypatch.setattr("core_tuning.robustness.masking.SQUARE_QUERIES", 3)
    (tmp_path / "own.py").write_text(
        SOURCE + "class Kept(nn.Dropout):\n"
        "    def train(self, mode=True): return super().train(True)\n"
        "def kept(): return nn.Sequential(nn.Flatten(), Kept(0.3), nn.Linear(192, 2))\n"
    )
    arguments = ["robust", "evaluate", "--module", f"{tmp_path / 'own.py'}:kept", "--dataset",
                 "folder", "--data-dir", run.parent / "data", "--image-size", 8, "--transforms",
                 "small", "--n", 6, "--linf", "--l2", 0.3, "--attacks", "pgd10", "--workers", 0,
                 "--output", tmp_path / "out"]  # fmt: skip
    assert main([str(argument) for argument in arguments]) == 0
    assert "The model is randomised" in capsys.readouterr().out
