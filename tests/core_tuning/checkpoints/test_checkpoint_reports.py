"""What loading a checkpoint reports, and what `inspect` says of one without loading it."""

import subprocess
import sys

import pytest
import torch

from core_tuning.checkpoints.architecture import guess_architecture
from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.inspect import Inspect, main
from core_tuning.checkpoints.load import load_pretrained
from core_tuning.encoders import Normalisation, build_encoder

IMAGENET = Normalisation()
HALF = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESNET = "small_resnet"
NO_HEAD = "encoder without a head (Barlow Twins, VICReg, DINO ResNet-50 or other)"


def test_report_says_what_was_done(kit, tmp_path):
    report = load_pretrained(
        kit.save(tmp_path / "f.pt", kit.moco(kit.state_of(RESNET), kit.MLP)), kit.fresh(RESNET)
    )
    first, second, third = report.lines()
    assert first == f"loaded {len(kit.state_of(RESNET))} tensors (0.7 M parameters) from MoCo v2"
    assert second.startswith(f"ignored {len(report.ignored)}: module.encoder_q.fc.0.weight, ")
    assert third == "input normalisation: ImageNet mean and std"
    assert str(report) == "\n".join(report.lines())


def test_supervised_timm_files_bring_timms_normalisation(kit, tmp_path):
    name = "timm:vit_tiny_patch16_224"  # timm's mean and std for it are 0.5
    file = kit.save(tmp_path / "f.pt", kit.state_of(name) | kit.tensors("head.weight"))
    report = load_pretrained(file, kit.fresh(name))
    assert report.normalisation == HALF
    assert "timm's for vit_tiny_patch16_224" in report.note
    overridden = load_pretrained(file, kit.fresh(name), normalisation=IMAGENET)
    assert overridden.normalisation == IMAGENET and "timm's for" not in overridden.note


@pytest.mark.parametrize(
    ("encoder", "title"),
    [
        ("resnet50", "ResNet-50"),
        ("resnet101", "ResNet-101"),
        ("resnext101_64x4d", "ResNeXt-101 64x4d"),
        (RESNET, "small ResNet"),
        ("small_resnet_2x", "small ResNet 2x"),
        ("timm:vit_small_patch16_224", "ViT of patch 16, width 384, depth 12"),
        ("timm:vit_tiny_patch16_384", "ViT of patch 16, width 192, depth 12"),
        ("timm:vit_small_patch8_224", "ViT of patch 8, width 384, depth 12"),
    ],
)
def test_architectures_are_guessed_from_shapes(encoder, title):
    with torch.device("meta"):
        module = build_encoder(encoder)
    guess = guess_architecture(module.state_dict())
    assert guess.description == title and guess.encoder == encoder


def test_inspect_says_how_to_use_a_file(kit, tmp_path, capsys):
    file = kit.save(tmp_path / "my file.pth", kit.moco(kit.state_of("resnet50"), kit.MLP))
    main(Inspect(files=[str(file)]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{file}: {file.stat().st_size / 1e6:.1f} MB, MoCo v2"
    assert lines[1] == "architecture: ResNet-50, 23.5 M parameters, features 2048"
    assert lines[2].startswith("tensors: 318 of the encoder; ignored 329: module.encoder_q.fc.0.w")
    assert lines[3] == "input normalisation: ImageNet mean and std"
    assert lines[4] == f"use: --encoder resnet50 --pretrained '{file}'"


def test_inspect_of_an_unknown_architecture(kit, tmp_path):
    file = kit.save(tmp_path / "f.pth", kit.state_of("timm:test_convnext"))
    text = "\n".join(describe(file))
    assert "network of unknown architecture" in text and "--encoder timm:NAME" in text
    # Its head.norm is the encoder's, and is no sign of a classification head.
    assert NO_HEAD in text and "ignored" not in text


def test_inspect_refuses_what_loading_refuses(kit, tmp_path):
    file = tmp_path / "f.pth"
    file.write_bytes(b"")
    assert "it is empty" in kit.message(main, Inspect(files=[str(file)]))


def test_inspect_imports_torch_only_when_it_runs():
    check = "import sys, core_tuning.checkpoints.inspect; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
