"""The pre-training script on a few images: it exports, resumes, and what it exports loads."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from core_tuning.checkpoints.sources import load_image_encoder

SCRIPT = Path(__file__).parents[2] / "tools" / "pretrain_moco.py"


@pytest.fixture(scope="module")
def tool(import_tool):
    return import_tool("pretrain_moco")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine images of two classes: one grey, one not square."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for number in range(9):
        shape = [(40, 40, 3), (40, 40), (30, 50, 3)][min(number, 2)]
        path = root / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return root


def command(folder, output, *options):
    parts = [sys.executable, SCRIPT, "--images", folder, "--output", output, "--batch-size", "4",
             "--queue", "16", "--image-size", "32", "--stored-size", "40", "--device", "cpu",
             *options]  # fmt: skip
    return [str(part) for part in parts]


def pretrain(folder, output, *options):
    done = subprocess.run(
        command(folder, output, *options), check=True, capture_output=True, text=True
    )
    return done.stdout


def test_exports_an_encoder_that_loads(folder, tmp_path):
    output = tmp_path / "encoder.safetensors"
    printed = pretrain(folder, output, "--steps", "4", "--reports", "2", "--milestones", "0.5",
                       "--validation", folder)  # fmt: skip
    assert printed.count("knn") == 2
    with safe_open(output, framework="pt") as file:
        facts = json.loads(file.metadata()["core_tuning"])
    assert (facts["step"], facts["encoder"], facts["image_size"]) == (4, "small_resnet", 32)
    assert [line["step"] for line in json.loads(output.with_suffix(".json").read_text())] == [2, 4]
    encoder, source = load_image_encoder("small_resnet", str(output))
    torch.testing.assert_close(encoder.encoder.state_dict(), load_file(output))
    assert (tmp_path / "encoder_0.50.safetensors").exists(), source


@pytest.mark.slow
def test_a_killed_run_goes_on_to_equal_weights(folder, tmp_path):
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    pretrain(folder, whole, "--steps", "12")
    process = subprocess.Popen(command(folder, killed, "--steps", "12", "--save-every", "0"))
    state = killed.with_suffix(".state.pt")
    while not state.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert 0 < torch.load(state, weights_only=True)["step"] < 12
    pretrain(folder, killed, "--steps", "12", "--resume")
    torch.testing.assert_close(load_file(killed), load_file(whole), rtol=0, atol=0)


@pytest.mark.slow
def test_ends_when_its_minutes_are_over(folder, tmp_path):
    output = tmp_path / "encoder.safetensors"
    pretrain(folder, output, "--minutes", "0.02")
    history = json.loads(output.with_suffix(".json").read_text())
    assert history[-1]["step"] >= 1
    assert history[-1]["seconds"] >= 1


def test_images_are_read_as_they_were_packed(import_tool, folder, tmp_path):
    arrays = import_tool("image_arrays")
    paths = arrays.image_files(folder)
    labels = [arrays.label_of(path, folder) for path in paths]
    arrays.write_packed(paths, labels, tmp_path, 2)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    plain, packed = arrays.read_images(folder, 40), arrays.read_images(tmp_path, 40)
    assert plain.pixels.shape == (9, 40, 40, 3)
    assert labels == ["class0"] * 5 + ["class1"] * 4
    interleaved = [*range(0, 9, 2), *range(1, 9, 2)]
    np.testing.assert_array_equal(packed.pixels, plain.pixels[interleaved])
    np.testing.assert_array_equal(packed.labels, plain.labels[interleaved])
    first = np.asarray(Image.open(paths[0]))
    np.testing.assert_array_equal(plain.pixels[0], first)
    with pytest.raises(FileNotFoundError, match="no image"):
        arrays.read_images(tmp_path / "none", 40)


def settings(**changes):
    return Namespace(encoder="small_resnet", seed=0, queue=16, lr=0.1, weight_decay=1e-4,
                     image_size=32, temperature=0.2, batch_size=4, minutes=None, steps=4,
                     key_statistics="average",
                     **changes)  # fmt: skip


def test_the_loss_is_lightlys(tool):
    loss = pytest.importorskip("lightly.loss", reason="compares with the extra 'tools'")
    draw = torch.Generator().manual_seed(0)
    queries, keys, queue = (F.normalize(torch.randn(n, 8, generator=draw)) for n in (4, 4, 16))
    criterion = loss.NTXentLoss(0.2, memory_bank_size=(16, 8))
    criterion.memory_bank.bank = queue.clone()
    expected = criterion(queries.requires_grad_(), keys)
    found = F.cross_entropy(tool.moco_logits(queries, keys, queue, 0.2), torch.zeros(4).long())
    torch.testing.assert_close(found, expected)


def test_a_step_follows_eman_and_fills_the_queue(tool):
    moco = tool.Moco(settings(), torch.device("cpu"))
    before = {name: value.clone() for name, value in moco.key.module.state_dict().items()}
    queue = moco.queue.clone()
    images = torch.randint(0, 256, (4, 3, 40, 40), dtype=torch.uint8)
    loss, top1 = moco.train_step(images, 0.0)
    assert loss.isfinite()
    assert 0 <= top1 <= 1
    query = moco.query.state_dict()
    for name in ("encoder.encoder.conv1.weight", "encoder.encoder.bn1.running_var"):
        expected = 0.99 * before[name] + 0.01 * query[name]
        torch.testing.assert_close(moco.key.module.state_dict()[name], expected)
    assert not moco.key.module.training
    assert torch.equal(moco.queue[8:], queue[8:])
    torch.testing.assert_close(moco.queue[:8].norm(dim=1), torch.ones(8))
    assert not torch.equal(moco.queue[:8], queue[:8])


def test_nearest_neighbours_find_clusters(tool):
    centres = F.one_hot(torch.arange(4), 8).float()
    classes = torch.arange(4).repeat(10)
    draw = torch.Generator().manual_seed(0)
    known = F.normalize(centres[classes] + 0.1 * torch.randn(40, 8, generator=draw))
    assert tool.knn_accuracy(known, classes, centres, torch.arange(4)) == 1
    assert tool.knn_accuracy(known, classes, centres, torch.tensor([0, 1, 2, 0])) == 0.75
