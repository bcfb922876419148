"""Checkpoints that no command takes: one sentence each, and no run folder."""

from __future__ import annotations

import json
import os

import pytest
import torch

from core_tuning.encoders import build_encoder

TOO_LONG = "x" * 300
ROUTES = ("finetune", "robust train", "dg", "robust evaluate", "inspect")


def command(route, checkpoint, output, encoder="small_resnet"):
    """A short run of a command from a checkpoint."""
    start = ["--pretrained", checkpoint, "--encoder", encoder, "--output", output]
    if route == "dg":
        hparams = json.dumps({"checkpoint": str(checkpoint), "encoder": encoder})
        return [
            *route.split(), "--test_envs", 0, "--algorithm", "CETuning", "--hparams", hparams,
            "--steps", 1, "--output_dir", output,
        ]  # fmt: skip
    if route == "robust evaluate":
        stated = ["--normalisation", "imagenet", "--dataset", "emoji_domains"]
        return [*route.split(), checkpoint, "--encoder", encoder, *stated, "--output", output]
    if route == "inspect":
        return [route, checkpoint]
    return [*route.split(), *start, "--limit-steps", 1, "--workers", 0]


def damaged(path, name, change):
    """A small ResNet whose tensor of that name is another one."""
    state = dict(build_encoder("small_resnet").state_dict())
    state[name] = change(state[name])
    state |= {"fc.weight": torch.rand(34, 128), "fc.bias": torch.rand(34)}
    torch.save(state, path)
    return path


@pytest.fixture(params=ROUTES)
def route(request):
    if "robust" in request.param:
        pytest.importorskip("torchattacks")
        pytest.importorskip("pyautoattack")
    return request.param


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.index_fill(0, torch.tensor([0]), float("nan")), "which is not finite"),
        (torch.zeros_like, "which is 0 everywhere"),
        (lambda v: v.to(torch.complex64), "which is of the type complex64"),
        (lambda v: (100 * v).to(torch.int8), "which is of the type int8"),
        (lambda v: v.to_sparse(), "which is sparse_coo"),
        (lambda v: v.to("meta"), "which has no values"),
    ],
    ids=("nan", "zero", "complex", "int8", "sparse", "meta"),
)
def test_a_tensor_that_no_trained_network_has(kit, capsys, tmp_path, route, change, said):
    file = damaged(tmp_path / "f.pth", "layer2.0.conv1.weight", change)
    sentence = kit.run_bad(capsys, *command(route, file, tmp_path / "output"))
    assert f"f.pth' has the tensor layer2.0.conv1.weight, {said}" in sentence
    assert not (tmp_path / "output").exists()


def test_paths_that_are_no_files(kit, capsys, tmp_path, route):
    os.mkfifo(tmp_path / "pipe")
    for path, said in [
        (tmp_path / "pipe", "pipe is a pipe, a socket or a device"),
        ("/dev/zero", "/dev/zero is a pipe, a socket or a device"),
        (TOO_LONG, "does not exist" if route == "robust evaluate" else "File name too long"),
    ]:
        assert said in kit.run_bad(capsys, *command(route, path, tmp_path / "output"))
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("route", ["finetune", "dg", "inspect"])
def test_the_other_encoder_is_not_taken_instead(kit, capsys, tmp_path, route):
    state = build_encoder("small_resnet").state_dict()
    contents = {
        "student": {f"module.backbone.{key}": value for key, value in state.items()},
        "teacher": {f"module.net.{key}": value + 1 for key, value in state.items()},
    }
    torch.save(contents, tmp_path / "f.pth")
    sentence = kit.run_bad(capsys, *command(route, tmp_path / "f.pth", tmp_path / "output"))
    assert "in student/backbone.* (DINO, student), and in teacher what may be" in sentence
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("route", ["finetune", "robust train", "dg"], indirect=True)
def test_images_of_a_size_that_the_encoder_does_not_take(kit, capsys, tmp_path, route):
    """Said by a trial forward pass before the folder is made."""
    arguments = command(route, "random", tmp_path / "output", encoder="timm:vit_tiny_patch16_224")
    sentence = kit.run_bad(capsys, *arguments)
    size = 32 if route == "dg" else 48
    assert f"The encoder fails on images of {size}x{size} pixels (Input height" in sentence
    assert "pass --image-size 224, or another --encoder" in sentence
    assert not (tmp_path / "output").exists()


def test_weights_that_carry_nothing(kit, capsys, tmp_path):
    """Scales of 0 are no matrix of 0, and stop all that goes through them alike."""
    file = damaged(tmp_path / "f.pth", "bn1.weight", torch.zeros_like)
    sentence = kit.run_bad(capsys, *command("finetune", file, tmp_path / "output"))
    assert "features of a blank image and of noise are the same" in sentence
    file = damaged(tmp_path / "f.pth", "bn1.weight", lambda v: 1e38 * torch.ones_like(v))
    sentence = kit.run_bad(capsys, *command("finetune", file, tmp_path / "output"))
    assert "or are not finite" in sentence
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("name", ["evaluate", "robust evaluate"])
def test_what_is_no_run(kit, capsys, tmp_path, place, name):
    if name != "evaluate":
        pytest.importorskip("torchattacks")
        pytest.importorskip("pyautoattack")
    empty = tmp_path / "empty"
    empty.mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, said in [
        (tmp_path / "gone", "does not exist: name a run's folder"),
        (empty, "model.safetensors does not exist"),
        (place.single_run(), "has no model.safetensors yet: go on with it by --resume, or name"),
        (tmp_path / "pipe", "is a pipe, a socket or a device"),
        (TOO_LONG, "too long" if name == "evaluate" else "does not exist"),
    ]:
        assert said in kit.run_bad(capsys, *name.split(), path)
