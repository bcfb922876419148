"""The pre-training script on a few images: it exports, resumes, and what it exports loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from core_tuning.checkpoints import load_pretrained
from core_tuning.encoders import build_encoder

pytest.importorskip("lightly", reason="pre-training needs the extra 'tools'")
SCRIPT = Path(__file__).parents[2] / "tools" / "pretrain_moco.py"


def pretrain(folder: Path, output: Path, *options: str) -> None:
    command = [sys.executable, SCRIPT, "--images", folder, "--output", output, "--batch-size", "4",
               "--queue", "16", "--image-size", "32", "--workers", "0", *options]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)


def test_exports_an_encoder_that_loads(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    for number in range(9):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    output = tmp_path / "encoder.safetensors"
    pretrain(images, output, "--steps", "2")
    pretrain(images, output, "--steps", "4", "--resume")
    with safe_open(output, framework="pt") as file:
        facts = json.loads(file.metadata()["core_tuning"])
    assert (facts["steps"], facts["images"], facts["encoder"]) == (4, 9, "small_resnet")
    encoder = build_encoder("small_resnet")
    assert load_pretrained(output, encoder).loaded == len(encoder.state_dict())
