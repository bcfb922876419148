"""Small models, images and runs for the tests of the evaluation."""

from __future__ import annotations

import json
import types

import pytest
import torch
from torch import nn

pytest.importorskip("torchattacks")
pytest.importorskip("pyautoattack")

from core_tuning.cli import main
from core_tuning.encoders import ImageEncoder, build_encoder
from core_tuning.robustness.attack.view import AttackView
from core_tuning.training.folder import RunFolder
from core_tuning.training.learner import Learner

SIZE = 16


class Tiny(nn.Module):
    """A convolution, batch norm and a linear layer; logits of a size that attacks can move."""

    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, classes)

    def forward(self, images):
        return self.fc(self.bn(self.conv(images)).relu().mean((2, 3)))


def coloured(n, classes, size=SIZE, seed=0):
    """Noise with a weak colour of each class: learnt at once, and fooled by small changes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    images = 0.3 + 0.4 * torch.rand(n, 3, size, size, generator=generator)
    colours = torch.rand(classes, 3, generator=torch.Generator().manual_seed(9)) - 0.5
    return (images + 0.15 * colours[labels].view(-1, 3, 1, 1)).clamp(0, 1), labels


def train(model, images, labels, steps=60):
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def trained(classes=4):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return train(Tiny(classes), *coloured(128, classes))


@pytest.fixture(scope="session")
def tiny():
    """A trained model of four classes, and the view that is attacked."""
    model = trained()
    return types.SimpleNamespace(model=model, view=AttackView(model))


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ")
    assert error.count("\n") == 1, error
    return error


def write_run(folder, data_dir, classes=("ant", "bee"), size=SIZE, **facts):
    """Write what a finished run leaves that an evaluation reads."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = Learner(
            ImageEncoder(build_encoder("small_resnet")),
            nn.Linear(128, len(classes), bias=False),
            nn.Identity(),
        )
    known = {
        "encoder": "small_resnet", "classes": list(classes), "mean": [0.5] * 3, "std": [0.25] * 3,
        "image_size": size, "transforms": "small", "dataset": "folder", "method": "ce", "seed": 0,
    }  # fmt: skip
    options = {"data_dir": str(data_dir), "validation": 0.1, "fraction": 1.0}
    RunFolder(folder).start({"command": "finetune", "options": options, "seed": 0})
    (folder / "model.safetensors").write_bytes(learner.export({**known, **facts}))
    result = {"selection": "best validation top-1", "validation": {"top1": 50.0}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def run(tmp_path, write_folder):
    """A run's folder, of two classes of images of 20 pixels."""
    data = write_folder(tmp_path / "data", {"train": 4, "val": 9}, size=20)
    return write_run(tmp_path / "run", data)


@pytest.fixture
def evaluate(run):
    """Run the command on that run in little time; return its report."""

    def call(*options, attacks=("pgd10",), output=None, subject=None):
        output = output or run / "robustness"
        arguments = [
            *("robust", "evaluate"), *([run] if subject is None else subject),
            *("--l2", "0.3", "--linf", "2/255", "--attacks", *attacks, "--workers", 0),
            *("--batch-size", 5, "--output", output, "--no-masking-checks", *options),
        ]  # fmt: skip
        assert main([str(argument) for argument in arguments]) == 0
        return json.loads((output / "report.json").read_text())

    return call


@pytest.fixture
def quick_auto_attack(monkeypatch):
    """AutoAttack's own settings, with fewer iterations and queries."""
    from pyautoattack import AutoAttack

    original = AutoAttack.__init__

    def init(self, *arguments, **options):
        original(self, *arguments, **options)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter, attack.n_iter_orig = 6, 6
            attack.n_iter_2, attack.n_iter_min, attack.size_decr = 2, 1, 1
        self.fab.n_iter = 4

    monkeypatch.setattr(AutoAttack, "__init__", init)


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(
        Tiny=Tiny, coloured=coloured, trained=trained, train=train, refused=refused,
        write_run=write_run, SIZE=SIZE,
    )  # fmt: skip
