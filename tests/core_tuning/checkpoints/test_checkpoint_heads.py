"""Attention heads, which a vision transformer's tensors do not show."""

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.load import load_pretrained
from core_tuning.checkpoints.sources import load_image_encoder
from core_tuning.encoders import build_encoder, hidden_heads
from core_tuning.errors import UserError
from core_tuning.objectives import CrossEntropyLoss
from core_tuning.training.exported import load_model
from core_tuning.training.learner import Learner

NAME = "timm:vit_small_patch16_224"
WITH_12 = f"{NAME},num_heads=12"
TINY = "timm:test_vit"  # of width 64 for images of 160 pixels, with 2 heads


def sin_cos_positions(side, width):
    """The fixed position embedding of MoCo v3, (1, 1 + side * side, width): 0 for the token."""
    frequencies = 10_000 ** (-torch.arange(width // 4) / (width // 4))
    places = torch.arange(side)
    # The first of both coordinates changes slowest: it is what MoCo v3 calls the width.
    angles = [
        places.repeat_interleave(side)[:, None] * frequencies,
        places.repeat(side)[:, None] * frequencies,
    ]
    patches = torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width), patches])[None]


def moco_v3_features(images, state, heads):
    """Features (n, d) of a ViT written out: of MoCo v3 with 12 heads where d is 384."""

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    patch = state["patch_embed.proj.weight"]
    x = F.conv2d(images, patch, state["patch_embed.proj.bias"], stride=patch.shape[-1])
    x = x.flatten(2).transpose(1, 2)
    n, _, width = x.shape
    x = torch.cat([state["cls_token"].expand(n, 1, width), x], dim=1) + state["pos_embed"]
    for number in range(sum(key.endswith("qkv.weight") for key in state)):
        block = f"blocks.{number}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.view(n, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // heads) ** -0.5).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(n, -1, width)
        x = x + linear(mixed, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


@functools.cache
def vit_small():
    """Tensors as MoCo v3 has them, large enough for the heads to matter."""
    torch.manual_seed(0)
    state = build_encoder(NAME).state_dict()
    state = {key: 3 * value if "qkv" in key else value for key, value in state.items()}
    return state | {"pos_embed": sin_cos_positions(14, 384)}


@pytest.fixture
def images():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def moco_v3(kit, tmp_path):
    contents = {"arch": "vit_small", **kit.moco_v3(vit_small(), kit.tensors("head.0.weight"))}
    return kit.save(tmp_path / "vit-s-300ep.pth.tar", contents)


def encode(module, images):
    with torch.no_grad():
        return module.eval()(images)


def test_moco_v3_has_12_heads_and_its_features(moco_v3, images):
    loaded, report = load_image_encoder(NAME, str(moco_v3))
    assert loaded.name == WITH_12
    assert "note: took state_dict/base_encoder.* and not" in report
    assert "12 attention heads, as in MoCo v3" in report
    expected = moco_v3_features(images, vit_small(), heads=12)
    torch.testing.assert_close(encode(loaded.encoder, images), expected, atol=1e-5, rtol=0)
    # With timm's heads the same tensors load, and compute something else.
    as_timm = moco_v3_features(images, vit_small(), heads=6)
    assert (as_timm - expected).abs().max() > 0.1
    overridden, report = load_image_encoder(f"{NAME},num_heads=6", str(moco_v3))
    assert "6 attention heads, as asked for, where MoCo v3 has 12" in report
    torch.testing.assert_close(encode(overridden.encoder, images), as_timm, atol=1e-5, rtol=0)


def test_what_a_run_exports_has_the_same_heads(moco_v3, images, tmp_path):
    image_encoder, _ = load_image_encoder(NAME, str(moco_v3))
    learner = Learner(image_encoder, nn.Linear(384, 2, bias=False), CrossEntropyLoss(2)).eval()
    facts = {
        "encoder": image_encoder.name, "classes": ["a", "b"], "mean": [0.5] * 3, "std": [0.5] * 3,
        "image_size": 224, "transforms": "imagenet", "dataset": "folder", "seed": 0,
    }  # fmt: skip
    file = tmp_path / "model.safetensors"
    file.write_bytes(learner.export(facts))
    model, _ = load_model(tmp_path)
    assert hidden_heads(model[0].encoder) == 12
    expected = learner.classifier(learner.image_encoder.encoder(images))
    torch.testing.assert_close(model[1](encode(model[0].encoder, images)), expected)
    assert f"use: --encoder {NAME}" in "\n".join(describe(file))
    assert f"note: encoder {WITH_12}" in "\n".join(describe(file))
    # A run that starts from it has the heads that it states.
    again, report = load_image_encoder(NAME, str(file))
    assert again.name == WITH_12 and "12 attention heads, as in core-tuning model" in report


def test_inspect_names_the_heads(moco_v3, kit, tmp_path):
    lines = describe(moco_v3)
    assert lines[-2].endswith("; 12 attention heads, as in MoCo v3")
    assert lines[-1] == f"use: --encoder {WITH_12} --pretrained {moco_v3}"
    plain = kit.save(tmp_path / "encoder.pth", vit_small())
    lines = describe(plain)
    assert "note: assumed 6 attention heads, timm's number, because the tensors do" in lines[-2]
    assert lines[-1] == f"use: --encoder {NAME} --pretrained {plain}"
    linear = {"arch": "vit_small", "state_dict": kit.put("module.", vit_small())}
    linear["state_dict"] |= kit.tensors("module.head.weight")
    lines = describe(kit.save(tmp_path / "linear.pth", linear))
    assert lines[-2] == "note: 12 attention heads, as in MoCo v3, linear evaluation"


def test_assumed_and_given_heads_are_told(kit, tmp_path):
    file = kit.save(tmp_path / "vit.pth", kit.state_of(TINY))
    loaded, report = load_image_encoder(TINY, str(file))
    assert loaded.name == TINY
    assert "assumed 2 attention heads" in report and f"--encoder {TINY},num_heads=N" in report
    loaded, report = load_image_encoder(f"{TINY},num_heads=4", str(file))
    assert hidden_heads(loaded.encoder) == 4 and "note: 4 attention heads, as asked for" in report
    assert "heads" not in load_image_encoder("small_resnet", "embedded")[1]


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("timm:vit_small_patch16_224", 6),
        ("timm:deit_small_patch16_224", 6),
        ("timm:vit_small_patch14_reg4_dinov2", 6),
        ("timm:vit_small_patch16_dinov3", 6),
        ("timm:vit_tiny_patch16_224,num_heads=12", 12),
        # Tables, temperatures or norms of the heads show how many there are.
        ("timm:beit_base_patch16_224", None),
        ("timm:swin_tiny_patch4_window7_224", None),
        ("timm:xcit_nano_12_p8_224", None),
        ("timm:resnet18", None),
        ("resnet18", None),
    ],
)
def test_which_heads_are_hidden(name, heads):
    with torch.device("meta"):
        assert hidden_heads(build_encoder(name)) == heads


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{NAME},num_heads=5", "cannot be built with that number of heads (dim should be div"),
        (f"{NAME},num_heads=0", "has the option 'num_heads=0': expected timm:NAME,num_heads=N"),
        (f"{NAME},num_heads=9999999", "has the option 'num_heads=9999999'"),
        (f"{NAME},depth=3", "has the option 'depth=3'"),
        (f"{NAME},", "has the option ''"),
        ("timm:xcit_nano_12_p8_224,num_heads=2", "its weights show how many it has"),
        ("timm:resnet18,num_heads=2", "unexpected keyword argument"),
        ("timm:swin_tiny_patch4_window7_224,num_heads=3", "expected a vision transformer"),
        ("resnet18,num_heads=2", "Unknown encoder 'resnet18,num_heads=2'"),
    ],
)
def test_heads_that_cannot_be(kit, name, said):
    with pytest.raises(UserError, match=re.escape(said)):
        build_encoder(name)


def test_a_convolutional_stem_is_another_network(kit, tmp_path):
    """MoCo v3's vit_conv_small, which timm does not have."""
    state = dict(vit_small())
    del state["patch_embed.proj.weight"], state["patch_embed.proj.bias"]
    for number in range(0, 12, 3):
        state[f"patch_embed.proj.{number}.weight"] = torch.rand(48, 3, 3, 3)
    file = kit.save(tmp_path / "f.pth", kit.moco_v3(state, {}))
    text = kit.message(load_pretrained, file, kit.fresh(NAME))
    assert "tensors missing (2): patch_embed.proj.weight" in text
    assert "its patches come from several convolutions, so pass another checkpoint" in text
