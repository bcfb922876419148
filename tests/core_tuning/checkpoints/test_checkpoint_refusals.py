import pytest
import torch

from core_tuning.checkpoints.load import load_pretrained

RESNET = "small_resnet"
VIT = "timm:test_vit"


def refusal(kit, name, contents, tmp_path):
    """Try to load, and hold that the encoder is unchanged."""
    encoder = kit.fresh(name)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    text = kit.message(load_pretrained, kit.save(tmp_path / "f.pth", contents), encoder)
    kit.assert_holds(encoder, before)
    return text


@pytest.mark.parametrize(
    ("held", "wanted", "phrases"),
    [
        (
            "resnet18",
            "resnet34",
            [
                "a ResNet-34:",
                "tensors missing (80): layer1.2.conv1.weight",
                "pass `--encoder resnet18`",
            ],
        ),
        ("resnet34", "resnet18", ["without a place in it (80): layer1.2", "`--encoder resnet34`"]),
        (
            "resnet18",
            "resnet50",
            ["layer1.0.conv3.weight (nearest in the file layer1.0.conv", "`--encoder resnet18`"],
        ),
        ("resnet50", "resnet18", ["it holds a ResNet-50", "`--encoder resnet50`"]),
        ("resnext50_32x4d", "resnet50", ["another shape", "`--encoder resnext50_32x4d`"]),
        (RESNET, "resnet18", ["conv1.weight is (16, 3, 3, 3)", "`--encoder small_resnet`"]),
        ("timm:vit_tiny_patch16_224", "resnet18", ["`--encoder timm:vit_tiny_patch16_224`"]),
        ("resnet18", "timm:vit_tiny_patch16_224", ["a ViT of patch 16, width 192, depth 12"]),
        (VIT, "timm:vit_tiny_patch16_224", ["it holds a ViT of patch 16, width 64"]),
    ],
)
def test_another_architecture_is_named(kit, held, wanted, phrases, tmp_path):
    text = refusal(kit, wanted, kit.state_of(held), tmp_path)
    assert all(phrase in text for phrase in phrases), text


def test_a_missing_or_reshaped_tensor_is_refused(kit, tmp_path):
    for name in ("layer3.0.bn1.running_var", "layer2.1.conv1.weight", "bn1.bias"):
        state = dict(kit.state_of(RESNET))
        value = state.pop(name)
        text = refusal(kit, RESNET, state, tmp_path)
        assert f"tensors missing (1): {name} (nearest in the file" in text
        text = refusal(kit, RESNET, state | {name: value[:3]}, tmp_path)
        assert f"of another shape (1): {name} is (3," in text


def test_unknown_prefixes_are_named_as_the_nearest(kit, tmp_path):
    text = refusal(kit, RESNET, kit.put("net.trunk.", kit.state_of(RESNET)), tmp_path)
    assert "conv1.weight (nearest in the file net.trunk.conv1.weight)" in text


def test_what_would_be_cut_off_is_refused_and_what_would_not_is_told(kit, tmp_path):
    state = kit.state_of(VIT)
    deeper = {key.replace("blocks.0", "blocks.77"): v for key, v in state.items() if "cks.0" in key}
    assert "): blocks.77" in refusal(kit, VIT, state | deeper, tmp_path)
    # A norm before the blocks, as in CLIP's, changes what the encoder computes.
    assert "without a place in it (1): norm_pre.weight" in refusal(
        kit, VIT, state | kit.tensors("norm_pre.weight"), tmp_path
    )
    file = kit.save(tmp_path / "f.pt", state | kit.tensors("my_probe.weight"))
    assert "my_probe.weight" in load_pretrained(file, kit.fresh(VIT)).ignored


def test_position_embeddings_of_another_size(kit, tmp_path):
    state = kit.state_of("timm:vit_tiny_patch16_224")
    text = refusal(
        kit, "timm:vit_tiny_patch16_224", state | {"pos_embed": torch.zeros(1, 50, 192)}, tmp_path
    )
    assert "pos_embed is (1, 50, 192) and not (1, 197, 192)" in text
    assert "pass the timm encoder of the image size that it was trained at" in text


@pytest.mark.parametrize(("channels", "module"), [(1, "encoder1"), (2, "encoder2")])
def test_cmc_of_two_colour_spaces_is_refused(kit, channels, module, tmp_path):
    state = kit.state_of("resnet18") | {"conv1.weight": torch.zeros(64, channels, 7, 7)}
    text = refusal(kit, "resnet18", {"model": kit.put(f"module.{module}.", state)}, tmp_path)
    assert f"its stem takes {channels} of an image's 3 channels" in text


def test_supcontrast_stem_for_small_images_is_refused(kit, tmp_path):
    state = {k.replace("downsample", "shortcut"): v for k, v in kit.state_of("resnet18").items()}
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    text = refusal(kit, "resnet18", {"model": kit.put("encoder.", state)}, tmp_path)
    assert "missing (15): layer2.0.downsample.0.weight" in text
    assert "its stem is a 3x3 convolution for small images" in text


def test_simclr_v2_is_refused(kit, tmp_path):
    contents = {
        "resnet": kit.tensors("net.0.0.weight", "fc.weight"),
        "head": kit.tensors("layers.0.weight"),
    }
    assert "is a SimCLR v2 checkpoint" in refusal(kit, RESNET, contents, tmp_path)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ([1, 2], "holds a list: expected a dictionary of tensors"),
        (torch.zeros(2), "holds a Tensor"),
        ({"epoch": 3, "net": {"conv1.weight": torch.zeros(2)}}, "among its keys (epoch, net)"),
        ({}, "no encoder that is recognised"),
        ({"state_dict": {"module.queue": torch.zeros(2)}}, "among its keys (state_dict)"),
    ],
)
def test_contents_without_an_encoder(kit, contents, reason, tmp_path):
    assert reason in refusal(kit, RESNET, contents, tmp_path)
