"""The moving average of the weights is what is validated and exported, and it resumes."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.errors import UserError
from core_tuning.training.ema import make_average


def test_the_average_follows_the_weights(tiny):
    learner = tiny.build_learner()
    average = make_average(learner, 0.75)
    weight = learner.classifier.weight
    expected = None
    for step in range(4):
        with torch.no_grad():
            weight.copy_(torch.full_like(weight, float(step)))
        average.update_parameters(learner)
        expected = float(step) if expected is None else 0.75 * expected + 0.25 * step
    assert torch.allclose(average.module.classifier.weight, torch.full_like(weight, expected))
    assert torch.equal(weight, torch.full_like(weight, 3.0))


def test_no_average_by_default(tiny):
    assert make_average(tiny.build_learner(), 0.0) is None


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(tiny, decay):
    with pytest.raises(UserError, match=r"expected in \[0, 1\)"):
        make_average(tiny.build_learner(), decay)


def test_the_average_is_validated_and_exported(tiny, tmp_path):
    validated = []

    def validate(learner):
        validated.append(learner)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(
            tmp_path / "stopped", trained := tiny.build_learner(), validate=validate, ema=0.9
        )
    assert validated[0] is not trained
    assert not torch.equal(validated[0].classifier.weight, trained.classifier.weight)
    run = tiny.train(tmp_path / "whole", validate=None, ema=0.9)
    stored = load_file(run.folder.model_path)["fc.weight"]
    assert torch.equal(stored, run.state.evaluated.classifier.weight)
    assert not torch.equal(stored, run.learner.classifier.weight)


def test_the_average_changes_nothing_in_the_training(tiny, tmp_path):
    plain = tiny.train(tmp_path / "plain", validate=None)
    averaged = tiny.train(tmp_path / "averaged", validate=None, ema=0.9)
    assert torch.equal(plain.learner.classifier.weight, averaged.learner.classifier.weight)


def test_a_resumed_average_is_bit_equal(tiny, tmp_path):
    whole = tiny.train(tmp_path / "whole", ema=0.9)

    def stop(learner):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.train(tmp_path / "cut", validate=stop, ema=0.9, checkpoint_minutes=0)
    resumed = tiny.train(tmp_path / "cut", ema=0.9)
    for name, tensor in whole.state.evaluated.state_dict().items():
        assert torch.equal(tensor, resumed.state.evaluated.state_dict()[name]), name
