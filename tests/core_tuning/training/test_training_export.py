"""What a run exports loads into a plain torchvision or timm model, and gives the same logits."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from core_tuning.encoders import ImageEncoder, Normalisation, build_encoder, feature_dim
from core_tuning.errors import UserError
from core_tuning.objectives import CrossEntropyLoss
from core_tuning.training import Learner
from core_tuning.training.exported import load_model

CLASSES = 4
NORMALISATION = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
# A name and the side of the images; what timm calls the classification layer differs in all.
MODELS = [
    ("resnet18", 64),
    ("timm:resnet10t", 64),
    ("timm:vit_tiny_patch16_224", 224),
    ("timm:convnext_atto", 64),
    # Its head has a hidden layer, so that the features are wider than `num_features`.
    ("timm:mobilenetv3_small_050", 64),
]


def build_learner(name):
    torch.manual_seed(0)
    encoder = build_encoder(name)
    dim = feature_dim(encoder)
    learner = Learner(
        ImageEncoder(encoder, NORMALISATION),
        nn.Linear(dim, CLASSES, bias=False),
        CrossEntropyLoss(CLASSES),
    )
    return learner.to(memory_format=torch.channels_last).eval()


def plain_model(name):
    if name.startswith("timm:"):
        return timm.create_model(name.removeprefix("timm:"), num_classes=CLASSES)
    return torchvision.models.get_model(name, num_classes=CLASSES)


def write(learner, path, **facts):
    path.write_bytes(learner.export(facts))
    return path


@pytest.mark.parametrize(("name", "size"), MODELS)
def test_plain_model(tmp_path, name, size):
    learner = build_learner(name)
    path = write(learner, tmp_path / "model.safetensors")
    model = plain_model(name).eval()
    model.load_state_dict(load_file(path), strict=True)
    images = torch.rand(2, 3, size, size)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in NORMALISATION)
    with torch.no_grad():
        torch.testing.assert_close(
            model((images - mean) / std), learner(images), atol=1e-5, rtol=1e-5
        )


def test_a_model_with_two_classification_layers(tmp_path):
    """timm's distilled DeiT is refused at once: its export could not load into it."""
    with pytest.raises(UserError, match="several classification layers"):
        build_learner("timm:deit_tiny_distilled_patch16_224")


def test_read_back_by_the_package(tmp_path):
    learner = build_learner("small_resnet")
    facts = {
        "encoder": "small_resnet",
        "classes": ["a", "b", "c", "d"],
        "mean": list(NORMALISATION.mean),
        "std": list(NORMALISATION.std),
    }
    path = write(learner, tmp_path / "model.safetensors", **facts)
    for where in (path, tmp_path):
        model, read = load_model(where)
        assert read == facts
        assert not model.training
        images = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(model(images), learner(images))


def test_metadata_is_json(tmp_path):
    path = write(build_learner("small_resnet"), tmp_path / "model.safetensors", classes=["é", "b"])
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["core_tuning"]) == {"classes": ["é", "b"]}


def test_load_exported_is_the_inverse():
    learner = build_learner("small_resnet")
    exported = {name: tensor.clone() for name, tensor in learner.exported().items()}
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = learner(images)
        for parameter in learner.parameters():
            parameter.add_(1)
        assert not torch.equal(learner(images), expected)
        learner.load_exported(exported)
        assert torch.equal(learner(images), expected)
    assert set(exported["fc.bias"].tolist()) == {0.0}
    assert all(tensor.is_contiguous() for tensor in exported.values())


def test_load_exported_refuses_missing_tensors():
    learner = build_learner("small_resnet")
    exported = learner.exported()
    del exported["conv1.weight"]
    with pytest.raises(RuntimeError, match=r"conv1\.weight"):
        learner.load_exported(exported)


def test_no_such_model(tmp_path):
    with pytest.raises(UserError, match="does not exist: name a run's folder or its model"):
        load_model(tmp_path)


def test_a_model_of_another_kind(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no fine-tuned model of this package"):
        load_model(tmp_path / "other.safetensors")


@pytest.mark.parametrize("contents", [b"", b"no tensors", None])
def test_a_damaged_model(tmp_path, contents):
    path = write(build_learner("small_resnet"), tmp_path / "model.safetensors", classes=["a"])
    path.write_bytes(path.read_bytes()[:1000] if contents is None else contents)
    with pytest.raises(UserError):
        load_model(path)
