"""A small learner to attack, and `core-tuning robust train` on a folder of small images."""

from __future__ import annotations

import json
import types

import pytest
import torch
from torch import nn

from core_tuning.cli import main
from core_tuning.encoders import ImageEncoder, build_encoder
from core_tuning.objectives import CrossEntropyLoss
from core_tuning.training.learner import Learner

CLASSES = 3


@pytest.fixture
def learner():
    """A small ResNet whose batch norms are far from the identity, in training mode."""
    torch.manual_seed(0)
    encoder = ImageEncoder(build_encoder("small_resnet"))
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return Learner(encoder, nn.Linear(128, CLASSES, bias=False), CrossEntropyLoss()).train()


@pytest.fixture
def batch():
    """Images (6, 3, 16, 16) in [0, 1] and labels (6,)."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 3, 16, 16, generator=generator)
    return images, torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def data(tmp_path, write_folder):
    return write_folder(tmp_path / "data", {"train": 20, "val": 6, "test": 9})


@pytest.fixture
def arguments(data, tmp_path):
    """Make the command line of a run of one epoch of two steps, into `run`."""

    def make(*options, output="run", method="ce"):
        return [str(part) for part in (
            "robust", "train", "--dataset", "folder", "--data-dir", data, "--pretrained",
            "embedded", "--transforms", "small", "--image-size", 16, "--batch-size", 16,
            "--workers", 0, "--epochs", 1, "--attack-steps", 2, "--method", method, "--output",
            tmp_path / output, *options,
        )]  # fmt: skip

    return make


@pytest.fixture
def train(arguments, tmp_path):
    """Run it, and read what it leaves behind."""

    def call(*options, output="run", method="ce"):
        assert main(arguments(*options, output=output, method=method)) == 0
        folder = tmp_path / output
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        result = json.loads((folder / "result.json").read_text())
        return types.SimpleNamespace(folder=folder, lines=lines, result=result)

    return call
