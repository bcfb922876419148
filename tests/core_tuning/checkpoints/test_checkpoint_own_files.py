import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core_tuning.checkpoints.describe import describe
from core_tuning.checkpoints.load import load_pretrained
from core_tuning.encoders import ImageEncoder, Normalisation

RESNET = "small_resnet"
TORCHVISION = "supervised (torchvision or timm)"


def test_own_model_with_its_metadata(kit, tmp_path):
    state = kit.state_of("resnet18")
    facts = {
        "encoder": "resnet18",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
        "classes": ["cat", "dog"],
        "image_size": 48,
        "method": "core_tuning",
    }
    file = tmp_path / "model.safetensors"
    save_file(state | kit.FC, file, metadata={"core_tuning": json.dumps(facts)})
    encoder = kit.fresh("resnet18")
    report = load_pretrained(file, encoder)
    kit.assert_holds(encoder, state)
    assert report.format == "core-tuning model"
    assert report.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert report.ignored == ["fc.bias", "fc.weight"]
    assert report.note == "encoder resnet18, method core_tuning, classes 2, image size 48"
    text = "\n".join(describe(file))
    assert "ResNet-18, 11.2 M parameters, features 512" in text
    assert report.note in text and "mean 0.1, 0.2, 0.3; std 0.4, 0.5, 0.6" in text


def test_safetensors_of_others(kit, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(kit.state_of(RESNET) | kit.FC, file)
    encoder = kit.fresh(RESNET)
    assert load_pretrained(file, encoder).format == TORCHVISION
    kit.assert_holds(encoder, kit.state_of(RESNET))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ("not JSON", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        # Deeper than Python's stack, and with a whole number longer than it reads.
        ("[" * 100_000, "expected a JSON object"),
        ('{"seed": ' + "9" * 10_000 + "}", "expected a JSON object"),
        ('{"mean": "abc"}', "states the mean abc for its input: expected three numbers"),
        ('{"mean": "123"}', "states the mean 123"),
        ('{"mean": [0.1, 0.2]}', "states the mean [0.1, 0.2]"),
        ('{"mean": [NaN, 0, 0]}', "states the mean [nan, 0, 0]"),
        ('{"mean": [%s, 0, 0]}' % ("9" * 400), "states the mean [999"),
        ('{"std": [1, 0, 1]}', "states the std [1, 0, 1]"),
        ('{"std": [1, true, 1]}', "states the std [1, True, 1]"),
        ('{"encoder": "timm:x,depth=3"}', "has the option 'depth=3'"),
    ],
    ids=lambda text: text[:20],
)
def test_own_model_with_damaged_metadata(kit, facts, said, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(kit.state_of(RESNET), file, metadata={"core_tuning": facts})
    assert said in kit.message(load_pretrained, file, kit.fresh(RESNET))
    assert said in kit.message(describe, file)


def run_checkpoint(kit, version=1):
    model = ImageEncoder(kit.fresh(RESNET), Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    model.encoder.load_state_dict(kit.state_of(RESNET))
    return {
        "core_tuning_checkpoint": version,
        "image_encoder": model.state_dict(),
        "classifier": {"weight": torch.zeros(7, 128), "bias": torch.zeros(7)},
        "objective": kit.tensors("head.0.weight"),
        "generators": {"numpy": np.random.RandomState(0).get_state()},
        "step": 120,
        "config": {"encoder": RESNET, "method": "core_tuning"},
        **kit.TRAINING,
    }


def test_own_run_checkpoint(kit, tmp_path):
    file = kit.save(tmp_path / "checkpoint.pt", run_checkpoint(kit))
    encoder = kit.fresh(RESNET)
    report = load_pretrained(file, encoder)
    kit.assert_holds(encoder, kit.state_of(RESNET))
    assert report.format == "core-tuning run checkpoint"
    assert report.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert report.ignored == ["classifier", "objective", "optimizer"]
    assert report.note == "encoder small_resnet, method core_tuning, classes 7, step 120"


def test_own_run_checkpoint_that_cannot_be_used(kit, tmp_path):
    later = kit.save(tmp_path / "later.pt", run_checkpoint(kit, version=2))
    assert "version 2: expected version 1" in kit.message(load_pretrained, later, kit.fresh(RESNET))
    bare = run_checkpoint(kit)
    del bare["image_encoder"]["mean"]
    text = kit.message(load_pretrained, kit.save(tmp_path / "bare.pt", bare), kit.fresh(RESNET))
    assert "without an encoder, 'mean' or 'std'" in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"core_tuning_checkpoint": torch.ones(2)}, "of version tensor([1., 1.]): expected"),
        ({"core_tuning_checkpoint": True}, "of version True: expected version 1"),
        ({"image_encoder": 3}, "without an encoder, 'mean' or 'std'"),
        ({"mean": torch.zeros(3, 1, 1, dtype=torch.complex64)}, "mean, which is of the type compl"),
        ({"mean": torch.zeros(1).expand(10**12)}, "states the mean ()"),
        ({"std": torch.zeros(3, 1, 1)}, "states the std (0.0, 0.0, 0.0)"),
        ({"std": torch.zeros(3, 1, 1).to_sparse()}, "std, which is sparse_coo"),
    ],
    ids=range(7),
)
def test_own_run_checkpoint_with_other_values(kit, change, said, tmp_path):
    contents = run_checkpoint(kit)
    for name, value in change.items():
        (contents["image_encoder"] if name in ("mean", "std") else contents)[name] = value
    file = kit.save(tmp_path / "checkpoint.pt", contents)
    assert said in kit.message(describe, file)
    assert said in kit.message(load_pretrained, file, kit.fresh(RESNET))


def test_the_command_that_is_to_be_pasted_runs_nothing_else(kit, tmp_path):
    file = tmp_path / "model.safetensors"
    facts = json.dumps({"encoder": "x; rm -rf ~\n"})
    save_file({"x.weight": torch.rand(2)}, file, metadata={"core_tuning": facts})
    assert describe(file)[-1] == f"use: --encoder 'x; rm -rf ~\\n' --pretrained {file}"
