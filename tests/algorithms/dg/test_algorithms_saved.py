"""Trained models in three lines, ours and DomainBed's."""

from __future__ import annotations

import os

import pytest
import torch

from core_tuning.algorithms.algorithm import CLASSES
from core_tuning.algorithms.hyperparameters import default_hparams
from core_tuning.algorithms.saved import load_model, save_model
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD, build_encoder, hidden_heads
from core_tuning.errors import UserError
from core_tuning.training.learner import Learner


def domainbed_file(path, name, **hparams):
    """What train.py of DomainBed writes at its end."""
    hparams = {**default_hparams(name, "Debug28"), **hparams}
    algorithm = CLASSES[name]((3, 28, 28), 4, 2, hparams)
    minibatches = [(torch.randn(4, 3, 28, 28), torch.arange(4)) for _ in range(2)]
    for _ in range(3):
        algorithm.update(minibatches, None)
    torch.save(
        {
            "args": {"algorithm": name, "test_envs": [0], "hparams": None},
            "model_input_shape": (3, 28, 28),
            "model_num_classes": 4,
            "model_num_domains": 2,
            "model_hparams": hparams,
            "model_dict": algorithm.state_dict(),
        },
        path,
    )
    return algorithm


@pytest.mark.parametrize("name", CLASSES)
def test_a_file_of_domainbeds(tmp_path, name):
    torch.manual_seed(0)
    algorithm = domainbed_file(tmp_path / "model.pkl", name, resnet_dropout=0.5)
    images = torch.rand(5, 3, 28, 28)
    model = load_model(tmp_path / "model.pkl")
    assert type(model) is CLASSES[name]
    assert not model.training
    algorithm.eval()
    with torch.no_grad():
        expected = algorithm(images)
        assert torch.equal(model(images), expected)
        mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        torch.testing.assert_close(model.predict((images - mean) / std), expected)
    assert model.hparams == algorithm.hparams
    assert int(model.steps_taken) == 3


def test_training_goes_on_at_the_schedules_point(tmp_path):
    algorithm = domainbed_file(tmp_path / "model.pkl", "CETuning", total_steps=4, lr_decay=0.01)
    model = load_model(tmp_path)
    assert model._decay() == algorithm._decay() == pytest.approx(0.01)


def test_a_folder_of_ours_whose_checkpoint_is_gone(kit, tmp_path):
    encoder = tmp_path / "encoder.safetensors"
    first = kit.run(tmp_path / "first", "--steps", 1)
    encoder.write_bytes((first / "model.safetensors").read_bytes())
    options = ("--steps", 2, "--algorithm", "CECon")
    run = kit.run(tmp_path / "second", *options, checkpoint=str(encoder), encoder="small_resnet")
    encoder.unlink()
    model = load_model(str(run))
    weights = kit.weights(run)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert model.hparams["checkpoint"] == str(encoder)
    assert (model.hparams["batch_size"], model.hparams["total_steps"]) == (4, 2)


def test_what_is_no_model(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_model(tmp_path)
    for contents, named in [
        ({"args": {"algorithm": "ERM"}}, "holds ERM: expected the model.pkl of CETuning"),
        ({"model_dict": {}}, "holds no algorithm"),
        ([1, 2], "holds no algorithm"),
    ]:
        torch.save(contents, tmp_path / "model.pkl")
        with pytest.raises(UserError, match=named):
            load_model(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"To whom it may concern")
    with pytest.raises(UserError, match=r"model\.pkl"):
        load_model(tmp_path)
    (tmp_path / "model.pkl").unlink()
    os.mkfifo(tmp_path / "model.pkl")
    with pytest.raises(UserError, match="is a pipe, a socket or a device"):
        load_model(tmp_path)
    (tmp_path / "model.pkl").unlink()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no model\.pkl yet: go on with it by --resume"):
        load_model(tmp_path)


WEIGHT = "classifier.weight"


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("args", "algorithm"), ["ERM"], r"holds \['ERM'\]: expected the model.pkl of CETuning"),
        (("model_input_shape",), None, "damaged \\('model_input_shape' is None"),
        (("model_input_shape",), (3,), "no CETuning for 4 classes and images of the shape"),
        (("model_input_shape",), (1, 28, 28), "The images have 1 channels"),
        (("model_input_shape",), (3, -1, 28), "images of the shape \\(3, -1, 28\\)"),
        (("model_num_classes",), "4", "damaged \\('model_num_classes' is '4'"),
        (("model_num_classes",), -4, "no CETuning for -4 classes"),
        (("model_num_classes",), 2**50, "no CETuning for 1125899906842624 classes"),
        (("model_num_classes",), 5, "does not fit its own CETuning: it reshapes classifier.weig"),
        (("model_hparams",), [1], "damaged \\('model_hparams' is \\[1\\]"),
        (("model_hparams",), {1: 2}, "CETuning has no hyper-parameter '1'"),
        (("model_hparams", "lr"), "x", "The hyper-parameter lr is 'x'"),
        (("model_hparams", "encoder"), "resnet51", "Unknown encoder 'resnet51'"),
        (("model_dict",), torch.zeros(2), "damaged \\('model_dict' is tensor"),
        (("model_dict",), {}, "it lacks steps_taken"),
        (("model_dict", WEIGHT), 3, f"it lacks {WEIGHT}; copy it again"),
        (("model_dict", WEIGHT), torch.full((4, 128), torch.nan), f"{WEIGHT}, which is not fin"),
        (("model_dict", "other"), torch.ones(2), "it has besides other; copy it again"),
    ],
    ids=range(18),
)
def test_a_damaged_file(tmp_path, place, value, said):
    file = tmp_path / "model.pkl"
    domainbed_file(file, "CETuning")
    contents = torch.load(file, weights_only=True)
    *outer, last = place
    inside = contents
    for name in outer:
        inside = inside[name]
    inside[last] = value
    torch.save(contents, file)
    with pytest.raises(UserError, match=said) as caught:
        load_model(file)
    assert str(caught.value).isprintable() and str(caught.value).endswith((".", "?"))


def test_attention_heads_are_stored(tmp_path):
    """DomainBed stores the dictionary that it passes; the heads of MoCo v3's ViT-S are in it."""
    name = "timm:vit_small_patch16_224"
    state = build_encoder(name).state_dict()
    contents = {f"module.base_encoder.{key}": 3 * value for key, value in state.items()}
    torch.save({"state_dict": contents}, tmp_path / "moco.pth")
    hparams = {**default_hparams("CETuning", "PACS"), "encoder": name}
    hparams["checkpoint"] = str(tmp_path / "moco.pth")
    algorithm = CLASSES["CETuning"]((3, 224, 224), 4, 2, hparams)
    assert hparams["encoder"] == algorithm.hparams["encoder"] == f"{name},num_heads=12"
    learner = Learner(algorithm.featurizer.image_encoder, algorithm.classifier, algorithm.objective)
    args = {"algorithm": "CETuning"}
    save_model(tmp_path / "model.pkl", learner, 7, args, hparams, (3, 224, 224), 2)
    loaded = load_model(tmp_path)
    assert int(loaded.steps_taken) == 7
    assert hidden_heads(loaded.featurizer.image_encoder.encoder) == 12
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded(images), algorithm.eval()(images))


def test_a_checkpoint_is_reported(tmp_path, capsys):
    torch.save(build_encoder("small_resnet").state_dict(), tmp_path / "e.pth")
    hparams = {**default_hparams("CETuning", "Debug28"), "checkpoint": str(tmp_path / "e.pth")}
    CLASSES["CETuning"]((3, 28, 28), 4, 2, hparams)
    assert f"{tmp_path / 'e.pth'}: loaded 120 tensors (0.7 M" in capsys.readouterr().out
