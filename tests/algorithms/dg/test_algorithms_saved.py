"""Trained models in three lines, ours and DomainBed's."""

from __future__ import annotations

import pytest
import torch

from core_tuning.algorithms.algorithm import CLASSES
from core_tuning.algorithms.hyperparameters import default_hparams
from core_tuning.algorithms.saved import load_model
from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD
from core_tuning.errors import UserError


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
        ({"args": {"algorithm": "ERM"}}, "holds ERM: expected the model.pkl of CoreTuning"),
        ({"model_dict": {}}, "holds no algorithm"),
        ([1, 2], "holds no algorithm"),
    ]:
        torch.save(contents, tmp_path / "model.pkl")
        with pytest.raises(UserError, match=named):
            load_model(tmp_path)
    (tmp_path / "model.pkl").write_bytes(b"To whom it may concern")
    with pytest.raises(UserError, match=r"model\.pkl"):
        load_model(tmp_path)
