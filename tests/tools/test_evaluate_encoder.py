"""The comparison of frozen encoders, on two classes that differ in colour."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def tool(import_tool):
    return import_tool("evaluate_encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 4)):
        for channel, name in ((0, "red"), (2, "blue")):
            (root / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 40, (36, 36, 3), dtype=np.uint8)
                pixels[..., channel] += 200
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def test_tells_colours_apart_by_any_encoder(tool, folder, monkeypatch, capsys):
    options = ["--data", f"folder={folder}", "--weights", "small_resnet:embedded",
               "small_resnet:random", "--image-size", "32"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["evaluate_encoder.py", *options])
    tool.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == [
        f"| {folder.name} | small_resnet | embedded | 24 | 100.0 | 100.0 |",
        f"| {folder.name} | small_resnet | random | 24 | 100.0 | 100.0 |",
    ]


def test_samples_spread_over_the_classes(tool, folder):
    images = tool.load_splits("folder", folder, validation=0.0).train
    pixels, labels = tool.sample(images, 7, 32, seed=0)
    assert pixels.shape == (7, 3, 32, 32)
    assert sorted(labels.bincount().tolist()) == [3, 4]
