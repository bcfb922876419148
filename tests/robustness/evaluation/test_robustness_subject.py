"""Models from runs, checkpoints and Python files, and what is refused of them."""

from __future__ import annotations

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from core_tuning.encoders import IMAGENET_MEAN, IMAGENET_STD
from core_tuning.errors import UserError
from core_tuning.robustness.config import RobustEvaluate
from core_tuning.robustness.own_module import OwnModule
from core_tuning.robustness.subject import fingerprint, inspect_answers, load_subject


def options(model=None, **given):
    return RobustEvaluate(model=model, **given)


def named(path, **given):
    stated = {"encoder": "resnet18", "dataset": "cifar10", "normalisation": "imagenet"}
    return options(path, **{**stated, **given})


@pytest.fixture(scope="module")
def resnet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torchvision.models.resnet18(num_classes=10).eval()


def test_a_run(kit, tmp_path):
    run = kit.write_run(tmp_path / "run", "there", method="at_core")
    by_folder, by_file = (load_subject(options(p)) for p in (run, run / "model.safetensors"))
    assert by_folder.name == by_file.name == "run"
    assert by_folder.facts["kind"] == "run" and by_folder.facts["method"] == "at_core"
    assert by_folder.facts["selection"] == "best validation top-1"
    assert by_folder.facts["weights"] == by_file.facts["weights"]
    assert (by_folder.dataset, by_folder.run["data_dir"]) == ("folder", "there")
    assert not any(parameter.requires_grad for parameter in by_folder.model.parameters())


def test_a_domain_generalisation_run_has_trained_on_the_test_split(kit, tmp_path):
    run = kit.write_run(tmp_path / "run", "there", targets=["emoji"])
    with pytest.raises(UserError, match="the model was trained on"):
        load_subject(options(run))


@pytest.mark.parametrize("option", ["encoder", "normalisation", "transforms", "image_size"])
def test_a_run_states_it_itself(kit, tmp_path, option):
    run = kit.write_run(tmp_path / "run", "there")
    with pytest.raises(UserError, match="a run states it"):
        load_subject(options(run, **{option: "imagenet"}))


@pytest.mark.parametrize("layout", ["plain", "module.", "state_dict", "safetensors", "half"])
def test_checkpoints_equal_torchvisions_model(tmp_path, resnet, layout):
    state, path = resnet.state_dict(), tmp_path / "model.pth"
    if layout == "safetensors":
        path = tmp_path / "other.safetensors"
        save_file(state, path)
    elif layout == "half":
        half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        torch.save(half, path)
    elif layout == "state_dict":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        prefix = "module." if layout == "module." else ""
        torch.save({prefix + key: value for key, value in state.items()}, path)
    subject = load_subject(named(path))
    assert {parameter.dtype for parameter in subject.model.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = resnet((images - mean) / std)
        tolerance = 0.02 if layout == "half" else 1e-5
        torch.testing.assert_close(subject.model(images), expected, atol=tolerance, rtol=0)
        none = load_subject(named(path, normalisation="none")).model(images)
        torch.testing.assert_close(none, resnet(images), atol=tolerance, rtol=0)


def test_a_checkpoint_of_timm(tmp_path):
    import timm

    with torch.random.fork_rng():
        model = timm.create_model("resnet10t", num_classes=5).eval()
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    given = named(tmp_path / "timm.pth", encoder="timm:resnet10t", normalisation="none")
    subject = load_subject(given)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(subject.model(images), model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("missing", ["encoder", "dataset", "normalisation"])
def test_a_checkpoint_must_be_described(tmp_path, resnet, missing):
    torch.save(resnet.state_dict(), tmp_path / "model.pth")
    with pytest.raises(UserError, match="give --encoder, --dataset and"):
        load_subject(named(tmp_path / "model.pth", **{missing: None}))


@pytest.mark.parametrize(
    ("encoder", "change", "said"),
    [
        ("resnet34", {}, "does not fit the encoder resnet34: it lacks layer1.2"),
        ("resnet18", {"layer9.weight": torch.ones(1)}, "has besides layer9.weight"),
        ("resnet18", {"conv1.weight": torch.ones(64, 3, 3, 3)}, "reshapes conv1.weight"),
        ("resnet18", {"fc.weight": torch.ones(10, 7)}, "expected \\(classes, 512\\)"),
        ("timm:resnet10t", {}, "does not fit"),
        ("timm:vit_tiny_patch16_224", {}, "no classifier 'head.weight'"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path, resnet, encoder, change, said):
    torch.save({**resnet.state_dict(), **change}, tmp_path / "model.pth")
    with pytest.raises(UserError, match=said):
        load_subject(named(tmp_path / "model.pth", encoder=encoder))


MODULE = """
import torch
from helper import Layer  # beside it
def good():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).double().train()
def bad():
    raise RuntimeError("no weights here")
def number():
    return 3
constant = 4
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "my.py").write_text(MODULE)
    (tmp_path / "helper.py").write_text("Layer = None\n")
    return lambda function, **given: options(
        module=f"{tmp_path / 'my.py'}:{function}", dataset="cifar10", image_size=4, **given
    )


def test_a_module(module):
    subject = load_subject(module("good"))
    assert subject.model(torch.rand(2, 3, 4, 4)).dtype == torch.float32
    assert not subject.model.training and subject.name == "my-good"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("bad", r"raised RuntimeError \(no weights here\)"),
        ("number", "returned a int"),
        ("absent", "has no function 'absent'"),
        ("constant", "has no function 'constant'"),
    ],
)
def test_a_module_that_builds_no_model(module, function, said):
    with pytest.raises(UserError, match=said):
        load_subject(module(function))


def test_a_module_file_that_is_missing_or_broken(tmp_path):
    given = {"dataset": "cifar10", "image_size": 4}
    with pytest.raises(UserError, match="is not the file of"):
        load_subject(options(module=str(tmp_path / "gone.py:f"), **given))
    (tmp_path / "broken.py").write_text("def f(:\n")
    with pytest.raises(UserError, match="raised SyntaxError"):
        load_subject(options(module=str(tmp_path / "broken.py:f"), **given))


class Returns(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, images):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value[: len(images)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch.zeros(2, 7), "has 7 classes and the data set has 5"),
        (torch.zeros(2, 5, 1), r"of the shape \(2, 5, 1\)"),
        (torch.zeros(1, 5), r"of the shape \(1, 5\)"),
        ((torch.zeros(2, 5),), "returned a tuple"),
        (torch.full((2, 5), float("nan")), "not finite"),
        (RuntimeError("size mismatch\nmore"), r"raised RuntimeError \(size mismatch\)"),
    ],
)
def test_outputs_that_are_no_logits(value, said):
    with pytest.raises(UserError, match=said):
        inspect_answers(OwnModule(Returns(value), "own").eval(), torch.rand(2, 3, 8, 8), 5)
    inspect_answers(Returns(torch.zeros(2, 5)).eval(), torch.rand(2, 3, 8, 8), 5)


def test_fingerprints_tell_weights_apart():
    with torch.random.fork_rng():
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = fingerprint(model)
    assert fingerprint(model) == before
    model[1].running_mean += 1
    assert fingerprint(model) != before
