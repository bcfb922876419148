"""What changes batches: its random numbers, its figures in the log, and its weights."""

from __future__ import annotations

import pytest
import torch

from core_tuning.training.loop import ChangedBatch


class Doubling:
    """Joins each batch with a darker copy of itself; logs accuracy on either half."""

    figures = ("bright", "dark")

    def __init__(self, weights=None):
        self.weights = weights
        self.drawn, self.epochs, self.shapes = [], [], []

    def change(self, images, labels, generator, epoch):
        self.shapes.append(tuple(images.shape))
        self.epochs.append(epoch)
        self.drawn.append(float(torch.rand((), generator=generator)))
        weights = self.weights
        if weights is not None:
            weights = torch.tensor(weights).repeat_interleave(len(images))
        joined = torch.cat([images, 0.5 * images])
        return ChangedBatch(joined, labels.repeat(2), weights)

    def measure(self, logits, labels):
        right = (logits.argmax(dim=1) == labels).float().view(2, -1)
        return 100 * right.mean(dim=1)


@pytest.fixture
def fit(tiny, tmp_path):
    def call(name, change, **settings):
        settings = {"epochs": 1, **settings}
        run = tiny.train(tmp_path / name, validate=None, change=change, **settings)
        return run.learner, run.folder.read_metrics()

    return call


def weights_of(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.parameters()])


def test_draws_depend_on_seed_step_and_micro_batch_alone(fit):
    changes = [Doubling(), Doubling()]
    for name, change in zip("ab", changes, strict=True):
        fit(name, change, accumulate=2)
        torch.rand(3)
    assert changes[0].drawn == changes[1].drawn
    assert len(set(changes[0].drawn)) == 8
    assert set(changes[0].shapes) == {(3, 3, 4, 4)}


def test_the_epoch_is_told_in_fractions(fit):
    change = Doubling()
    fit("a", change, epochs=2)
    assert change.epochs == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_figures_are_logged_and_average_to_the_accuracy_of_all(fit):
    _, lines = fit("a", Doubling(), epochs=3)
    for line in lines:
        train = line["train"]
        assert train["top1"] == pytest.approx((train["bright"] + train["dark"]) / 2)
    assert any(line["train"]["bright"] != line["train"]["dark"] for line in lines)


def test_weights_reach_the_objective(fit):
    """Weights that are all alike change nothing; a half without weight does."""
    plain, _ = fit("a", Doubling())
    alike, _ = fit("b", Doubling(weights=(2.0, 2.0)))
    bright_only, _ = fit("c", Doubling(weights=(1.0, 0.0)))
    assert torch.allclose(weights_of(plain), weights_of(alike), atol=1e-6)
    assert not torch.allclose(weights_of(plain), weights_of(bright_only), atol=1e-3)


def test_figures_survive_a_stop_in_the_middle_of_an_epoch(fit, monkeypatch):
    class Stopping(Doubling):
        def change(self, images, labels, generator, epoch):
            if epoch == 1.5:
                raise KeyboardInterrupt
            return super().change(images, labels, generator, epoch)

    whole, lines = fit("whole", Doubling(), epochs=2, checkpoint_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        fit("cut", Stopping(), epochs=2, checkpoint_minutes=0)
    resumed, again = fit("cut", Doubling(), epochs=2, checkpoint_minutes=0)
    assert torch.equal(weights_of(whole), weights_of(resumed))
    assert [line["train"] for line in again] == [line["train"] for line in lines]
