"""What a run exports loads into a plain torchvision or timm model, and gives the same logits."""

from __future__ import annotations

import io
import json
import os

import pytest
import timm
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from torch import nn

from core_tuning.encoders import ImageEncoder, Normalisation, build_encoder, feature_dim
from core_tuning.errors import UserError
from core_tuning.objectives import CrossEntropyLoss
from core_tuning.training.exported import load_model
from core_tuning.training.learner import Learner

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

FACTS = {
    "encoder": "small_resnet",
    "classes": ["a", "b", "c", "d"],
    "mean": list(NORMALISATION.mean),
    "std": list(NORMALISATION.std),
    "image_size": 32,
    "transforms": "small",
    "dataset": "emoji_domains",
    "seed": 0,
}


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


def saved(contents):
    file = io.BytesIO()
    torch.save(contents, file)
    return file.getvalue()


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
    path = write(learner, tmp_path / "model.safetensors", **FACTS)
    for where in (path, tmp_path):
        model, read = load_model(where)
        assert read == FACTS
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


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_model(path)
    text = str(caught.value)
    assert text.endswith((".", "?")) and text.isprintable()
    return text


def test_no_such_model(tmp_path):
    assert "model.safetensors does not exist" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "gone.safetensors")
    assert "File name too long" in refusal("x" * 300)
    assert "a\\x00b' cannot be read" in refusal("a\0b")
    os.mkfifo(tmp_path / "model.safetensors")
    assert "is a pipe, a socket or a device" in refusal(tmp_path)


def test_a_run_that_has_no_model_yet(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    expected = f"The run in {tmp_path} has no model.safetensors yet: go on with it by --resume"
    assert expected in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "contents"),
    [
        ("other.safetensors", save({"weight": torch.zeros(2)})),
        ("other.safetensors", save({"weight": torch.zeros(2)}, {"core_tuning": "{}"})),
        ("other.pt", saved([1, 2])),
        ("other.pt", saved({"weight": torch.zeros(2)})),
        ("other.pt", saved({"__metadata__": 3})),
    ],
    ids=range(5),
)
def test_a_model_of_another_kind(tmp_path, file, contents):
    (tmp_path / file).write_bytes(contents)
    assert "is not a fine-tuned model of this package" in refusal(tmp_path / file)


@pytest.mark.parametrize("contents", [b"", b"no tensors", None])
def test_a_damaged_model(tmp_path, contents):
    path = write(build_learner("small_resnet"), tmp_path / "model.safetensors", **FACTS)
    path.write_bytes(path.read_bytes()[:1000] if contents is None else contents)
    assert "cannot be read" in refusal(path)


@pytest.mark.parametrize("name", FACTS)
@pytest.mark.parametrize("value", [None, True, 1.5, [], [3], {"a": 1}], ids=str)
def test_facts_of_another_type(tmp_path, name, value):
    path = write(
        build_learner("small_resnet"), tmp_path / "m.safetensors", **{**FACTS, name: value}
    )
    lists = name in ("classes", "mean", "std") and isinstance(value, list)
    text = refusal(path)
    if name == "classes" and lists:
        assert "is damaged (its classes are not texts)" in text
    elif lists:
        assert f"m.safetensors' states the {name} {value} for its input: expected three" in text
    else:
        assert f"m.safetensors is damaged ('{name}' is {value})" in text
    path = write(
        build_learner("small_resnet"), path, **{k: v for k, v in FACTS.items() if k != name}
    )
    text = refusal(path)
    assert "is not a fine-tuned model" in text if name == "classes" else f"'{name}' is None" in text


def test_facts_that_are_no_json_object(tmp_path):
    for text in ("[" * 100_000, "[]", "x"):
        save_file({"a": torch.zeros(2)}, tmp_path / "m.safetensors", {"core_tuning": text})
        assert "expected a JSON object" in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv1.weight": None}, "does not fit the encoder small_resnet: it lacks conv1.weight"),
        ({"conv1.weight": torch.rand(3)}, "it reshapes conv1.weight; copy it again"),
        ({"layer9.weight": torch.rand(3)}, "it has besides layer9.weight; copy it again"),
        ({"fc.weight": None}, "is missing: expected (classes, 128) for small_resnet"),
        ({"fc.weight": torch.rand(4, 5)}, "has the shape (4, 5): expected (classes, 128)"),
        ({"fc.weight": torch.rand(4)}, "has the shape (4,): expected (classes, 128)"),
        ({"fc.bias": torch.rand(5)}, "does not fit its classifier: it reshapes bias"),
        ({"fc.weight": torch.rand(3, 128), "fc.bias": None}, "4 classes and tells 3 apart"),
        ({"fc.weight": torch.ones(4, 128, dtype=torch.int8)}, "is of the type int8"),
        ({"conv1.weight": torch.zeros(16, 3, 3, 3)}, "conv1.weight, which is 0 everywhere"),
    ],
    ids=range(10),
)
def test_other_tensors_than_the_facts_say(tmp_path, change, said):
    tensors = {**build_learner("small_resnet").exported(), **change}
    path = tmp_path / "model.safetensors"
    tensors = {name: value for name, value in tensors.items() if value is not None}
    save_file(tensors, path, {"core_tuning": json.dumps(FACTS)})
    assert said in refusal(path)


def test_an_encoder_that_is_not_known(tmp_path):
    facts = {**FACTS, "encoder": "resnet51"}
    path = write(build_learner("small_resnet"), tmp_path / "model.safetensors", **facts)
    assert "Unknown encoder 'resnet51'" in refusal(path)
