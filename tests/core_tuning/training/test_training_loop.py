from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.data.loading import EpochSampler
from core_tuning.errors import UserError
from core_tuning.objectives import LossTerms
from core_tuning.training import progress
from core_tuning.training.evaluate import Evaluation


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.learner.parameters()])


def learning_rates(run):
    return [line["lr"] for line in run.folder.read_metrics()]


def scripted_validation(*top1s):
    """A validation whose accuracies (in percent of 10 images) are given."""
    remaining = list(top1s)

    def validate(learner):
        right = remaining.pop(0) // 10
        predicted = (torch.arange(10) >= right).long()
        return Evaluation(torch.zeros_like(predicted), predicted, torch.ones(10), 2, 1.0)

    return validate


def test_learning_something(tiny, tmp_path):
    run = tiny.train(tmp_path, epochs=8, images=60)
    lines = run.folder.read_metrics()
    assert lines[-1]["train"]["loss"] < lines[0]["train"]["loss"]
    assert lines[-1]["validation"]["top1"] > 60
    assert [line["epoch"] for line in lines] == list(range(1, 9))
    assert [line["step"] for line in lines] == list(range(10, 81, 10))


def test_accumulating_gradients_is_the_same_step(tiny, tmp_path):
    """For cross-entropy without batch norm, whose loss is a mean over images."""
    runs = [
        tiny.train(
            tmp_path / str(parts),
            tiny.build_learner(batch_norm=False),
            accumulate=parts,
            limit_steps=1,
        )
        for parts in (1, 2, 3)
    ]
    start = torch.cat([p.flatten() for p in tiny.build_learner(batch_norm=False).parameters()])
    assert (weights(runs[0]) - start).abs().max() > 1e-3
    for run in runs[1:]:
        torch.testing.assert_close(weights(run), weights(runs[0]), atol=1e-6, rtol=0)
        first, other = (r.folder.read_metrics()[0]["train"] for r in (runs[0], run))
        assert other["loss"] == pytest.approx(first["loss"], abs=1e-6)
        assert other["top1"] == pytest.approx(first["top1"])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", ["ce", "core_tuning"])
def test_optimisers_lower_the_loss(tiny, tmp_path, optimizer, method):
    lr = {"sgd": 0.1, "adam": 0.01}[optimizer]
    learner = tiny.build_learner(method)
    run = tiny.train(tmp_path, learner, epochs=6, optimizer=optimizer, lr=lr)
    losses = [line["train"]["loss"] for line in run.folder.read_metrics()]
    assert losses[-1] < losses[0]


def test_one_step_of_sgd_by_hand(tiny, tmp_path):
    """Momentum, Nesterov, weight decay and the first learning rate, in torch's own terms."""
    settings = {"lr": 0.2, "momentum": 0.7, "weight_decay": 0.01}
    run = tiny.train(tmp_path, limit_steps=1, images=6, **settings)
    learner = tiny.build_learner().train()
    optimizer = torch.optim.SGD(learner.parameters(), nesterov=True, **settings)
    images = tiny.Images(6)
    keys = next(iter(EpochSampler(6, 6, 0).batches(0)))
    batch = torch.stack([images[key][0] for key in keys])
    labels = torch.tensor([images[key][1] for key in keys])
    torch.nn.functional.cross_entropy(learner(batch), labels).backward()
    optimizer.step()
    expected = torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])
    torch.testing.assert_close(weights(run), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("linear", [1 - 3 / 12, 1 - 7 / 12, 1 - 11 / 12]),
        ("cosine", [0.5 * (1 + math.cos(math.pi * step / 12)) for step in (3, 7, 11)]),
        ("constant", [1, 1, 1]),
    ],
)
def test_the_rate_of_each_step(tiny, tmp_path, schedule, factors):
    """3 epochs of 4 steps: the last step of an epoch is taken at a share of 3/12, 7/12, 11/12."""
    run = tiny.train(tmp_path, schedule=schedule)
    assert learning_rates(run) == pytest.approx([0.1 * factor for factor in factors])


def test_limit_steps_ends_the_schedule_too(tiny, tmp_path):
    run = tiny.train(tmp_path, schedule="linear", limit_steps=6)
    lines = run.folder.read_metrics()
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (1.5, 6)]
    assert learning_rates(run) == pytest.approx([0.1 * (1 - 3 / 6), 0.1 * (1 - 5 / 6)])
    assert "validation" in lines[-1]


def test_a_limit_beyond_the_end_changes_nothing(tiny, tmp_path):
    run = tiny.train(tmp_path, limit_steps=1000)
    assert run.state.step == 12


@pytest.mark.parametrize("method", ["ce", "core_tuning"])
def test_bf16_on_a_cpu(tiny, tmp_path, method):
    run = tiny.train(tmp_path, tiny.build_learner(method), precision="bf16")
    assert all(parameter.dtype == torch.float32 for parameter in run.learner.parameters())
    assert all(math.isfinite(line["train"]["loss"]) for line in run.folder.read_metrics())


def test_bf16_is_used(tiny, tmp_path):
    learner = tiny.build_learner()
    seen = []
    learner.image_encoder.encoder.layers[1].register_forward_hook(
        lambda *call: seen.append((learner.training, call[2].dtype))
    )
    tiny.train(tmp_path, learner, precision="bf16", limit_steps=1)
    # Evaluation stays in float32.
    assert set(seen) == {(True, torch.bfloat16), (False, torch.float32)}


def test_the_best_model_is_exported(tiny, tmp_path):
    exported = []

    def validate(learner):
        exported.append(learner.exported()["fc.weight"].clone())
        return scripted(learner)

    scripted = scripted_validation(30, 80, 80, 50)
    run_learner = tiny.build_learner()
    run = tiny.train(tmp_path, run_learner, validate=validate, epochs=4)
    stored = load_file(run.folder.model_path)
    assert torch.equal(stored["fc.weight"], exported[1])
    assert not torch.equal(stored["fc.weight"], exported[3])
    assert (run.state.best_step, run.state.best_score) == (8, 80)


def test_the_last_model_is_exported_without_validation(tiny, tmp_path):
    run = tiny.train(tmp_path, validate=None)
    stored = load_file(run.folder.model_path)
    assert torch.equal(stored["fc.weight"], run.learner.classifier.weight)
    assert not any("validation" in line for line in run.folder.read_metrics())
    assert torch.equal(load_file(run.folder.last_path)["fc.weight"], stored["fc.weight"])


def test_eval_every_counts_steps_and_includes_the_last(tiny, tmp_path):
    run = tiny.train(tmp_path, epochs=5, eval_every=8)
    evaluated = [line["step"] for line in run.folder.read_metrics() if "validation" in line]
    assert evaluated == [8, 16, 20]


def test_a_length_in_steps(tiny, tmp_path):
    run = tiny.train(tmp_path, epochs=None, steps=7)
    assert [line["step"] for line in run.folder.read_metrics()] == [4, 7]


def test_the_same_seed_twice_and_another(tiny, tmp_path):
    runs = [
        tiny.train(tmp_path / name, tiny.build_learner("core_tuning"), seed=seed)
        for name, seed in (("a", 7), ("b", 7), ("c", 8))
    ]
    assert torch.equal(weights(runs[0]), weights(runs[1]))
    assert not torch.equal(weights(runs[0]), weights(runs[2]))


class Diverging(torch.nn.Module):
    """A cross-entropy that is NaN from its n-th call on."""

    def __init__(self, first_bad):
        super().__init__()
        self.calls, self.first_bad = 0, first_bad

    def forward(self, features, labels, classifier, *, generator=None):
        self.calls += 1
        logits = classifier(features)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss = loss * (math.nan if self.calls >= self.first_bad else 1.0)
        return LossTerms(loss, loss, loss.new_zeros(()), logits)


def finite_tensors(tree):
    if isinstance(tree, torch.Tensor):
        return not tree.is_floating_point() or bool(torch.isfinite(tree).all())
    if isinstance(tree, dict):
        return all(finite_tensors(value) for value in tree.values())
    return all(finite_tensors(value) for value in tree) if isinstance(tree, list | tuple) else True


@pytest.mark.parametrize("checkpoint_minutes", [0.0, 10.0])
def test_a_loss_that_is_not_finite(tiny, tmp_path, monkeypatch, checkpoint_minutes):
    """It stops at step 6, in the second epoch; what is kept is older and finite."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_READINGS", 0.0)
    learner = tiny.build_learner()
    learner.objective = Diverging(6)
    with pytest.raises(UserError, match="The loss is not finite at step 6: lower --lr"):
        tiny.train(tmp_path, learner, checkpoint_minutes=checkpoint_minutes)
    checkpoint = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == (5 if checkpoint_minutes == 0 else 4)
    assert finite_tensors(checkpoint)


def test_a_bad_loss_that_is_noticed_late(tiny, tmp_path):
    """Losses are read once a second; the end of an epoch looks back at all its steps."""
    learner = tiny.build_learner()
    learner.objective = Diverging(6)
    with pytest.raises(UserError, match="at step 6"):
        tiny.train(tmp_path, learner)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 4


def test_no_checkpoint_is_promised_where_there_is_none(tiny, tmp_path):
    learner = tiny.build_learner()
    learner.objective = Diverging(2)
    with pytest.raises(UserError, match="at step 2") as raised:
        tiny.train(tmp_path, learner)
    assert (tmp_path / "checkpoint.pt").exists() or "checkpoint is in" not in str(raised.value)


class BadGradient(Diverging):
    """A cross-entropy that stays finite, whose gradient is NaN at its n-th call."""

    def forward(self, features, labels, classifier, *, generator=None):
        self.calls += 1
        logits = classifier(features)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        if self.calls == self.first_bad:
            loss = loss + (0 * logits).sqrt().sum()
        return LossTerms(loss, loss, loss.new_zeros(()), logits)


@pytest.mark.parametrize("bad_step", [6, 8, 12])
def test_weights_that_are_not_finite_are_not_kept(tiny, tmp_path, monkeypatch, bad_step):
    """The loss shows it a step later, so that a checkpoint between the two is not good.

    It falls due in the middle of an epoch after step 6, at its end after 8, and 12 is the last.
    """
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_READINGS", 0.0)
    learner = tiny.build_learner()
    learner.objective = BadGradient(bad_step)
    with pytest.raises(UserError, match="finite"):
        tiny.train(tmp_path, learner, checkpoint_minutes=0)
    assert finite_tensors(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert finite_tensors(load_file(tmp_path / "model.safetensors"))


def test_weights_that_are_not_finite_are_not_exported(tiny, tmp_path):
    learner = tiny.build_learner()
    learner.objective = BadGradient(12)
    with pytest.raises(UserError, match="weights are not finite after step 12"):
        tiny.train(tmp_path, learner, validate=None)
    assert not (tmp_path / "model.safetensors").exists()
    assert not (tmp_path / "last.safetensors").exists()
