"""What the adversary makes of a batch, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch

from core_tuning.robustness.adversary import Adversary
from core_tuning.robustness.attack.pgd import perturb
from core_tuning.robustness.budgets import make_budget
from core_tuning.robustness.config import RobustTrain

pytest.importorskip("torchattacks")

BUDGET = make_budget("linf", 0.1, steps=2)


def plan(**given):
    """The options of that budget."""
    return RobustTrain(norm="linf", eps="0.1", attack_steps=2, **given)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def state_of(learner):
    tensors = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    modes = {name: module.training for name, module in learner.named_modules()}
    return tensors, modes, [p.requires_grad for p in learner.parameters()]


def test_clean_and_adversarial_halves_are_joined(learner, batch):
    images, labels = batch
    adversary = Adversary(learner, plan())
    changed = adversary.change(images, labels, generator(), 0.0)
    assert torch.equal(changed.images[:6], images)
    assert torch.equal(changed.labels, labels.repeat(2))
    assert changed.weights is None
    expected = perturb(adversary.view, images, labels, BUDGET, seed=5)
    assert torch.equal(changed.images[6:], expected)
    assert float((changed.images[6:] - images).abs().max()) == pytest.approx(0.1, abs=1e-6)


def test_adversarial_images_alone(learner, batch):
    images, labels = batch
    adversary = Adversary(learner, plan(adversarial_only=True))
    changed = adversary.change(images, labels, generator(), 0.0)
    assert changed.images.shape == images.shape
    assert not torch.equal(changed.images, images)
    assert torch.equal(changed.labels, labels)
    assert "clean_top1" not in adversary.figures


def test_the_weight_of_the_adversarial_half(learner, batch):
    adversary = Adversary(learner, plan(adv_weight=0.25))
    changed = adversary.change(*batch, generator(), 0.0)
    assert changed.weights.tolist() == [0.75] * 6 + [0.25] * 6


def test_the_learner_is_left_as_it_is(learner, batch):
    """Frozen batch norms among its modules stay frozen, the others stay in training mode."""
    frozen = next(m for m in learner.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    before = state_of(learner)
    Adversary(learner, plan()).change(*batch, generator(), 0.0)
    after = state_of(learner)
    assert not frozen.training
    assert after[1:] == before[1:]
    assert all(torch.equal(after[0][name], tensor) for name, tensor in before[0].items())
    assert all(parameter.grad is None for parameter in learner.parameters())


def test_current_weights_are_attacked(learner, batch):
    adversary = Adversary(learner, plan())
    first = adversary.change(*batch, generator(), 0.0).images
    with torch.no_grad():
        learner.classifier.weight.neg_()
    second = adversary.change(*batch, generator(), 0.0).images
    fresh = Adversary(learner, plan()).change(*batch, generator(), 0.0).images
    assert not torch.equal(first, second)
    assert torch.equal(second, fresh)


def test_the_generator_seeds_the_attack(learner, batch):
    adversary = Adversary(learner, plan())
    draws = [adversary.change(*batch, generator(seed), 0.0).images for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("epoch", "share"),
    [(0, 0), (1.9, 0), (2, 0), (3, 0.25), (4, 0.5), (5.9, 0.975), (6, 1), (50, 1)],
)
def test_eps_warms_up(learner, epoch, share):
    budget = Adversary(learner, plan(eps_warmup=[2.0, 4.0])).budget_at(epoch)
    assert budget.eps == pytest.approx(share * BUDGET.eps)
    assert budget.step_size == pytest.approx(share * BUDGET.step_size)


def test_eps_may_jump_after_epochs_at_zero(learner):
    adversary = Adversary(learner, plan(eps_warmup=[2.0, 0.0]))
    assert [adversary.budget_at(epoch).eps for epoch in (0, 1.99, 2)] == [0, 0, BUDGET.eps]
    assert Adversary(learner, plan()).budget_at(0) == BUDGET


def test_no_second_half_while_eps_is_zero(learner, batch):
    images, labels = batch
    adversary = Adversary(learner, plan(eps_warmup=[1.0, 0.0], adv_weight=0.9))
    changed = adversary.change(images, labels, generator(), 0.5)
    assert torch.equal(changed.images, images)
    assert changed.weights is None
    logits = torch.eye(3)[labels]
    assert adversary.measure(logits, labels).tolist() == [100, 100, 0, 0]


def test_figures(learner, batch):
    images, labels = batch
    adversary = Adversary(learner, plan())
    changed = adversary.change(images, labels, generator(), 0.0)
    logits = torch.eye(3)[torch.cat([labels, (labels + 1) % 3])]
    logits[6] = logits[0]
    figures = dict(zip(adversary.figures, adversary.measure(logits, changed.labels), strict=True))
    assert float(figures["clean_top1"]) == 100
    assert float(figures["robust_top1"]) == pytest.approx(100 / 6)
    assert float(figures["zero_gradients"]) == 0
    assert float(figures["eps"]) == pytest.approx(0.1)


def test_zero_gradients_are_counted(learner, batch):
    images, labels = batch
    with torch.no_grad():
        learner.classifier.weight.zero_()
    adversary = Adversary(learner, plan(adversarial_only=True))
    changed = adversary.change(images, labels, generator(), 0.0)
    figures = adversary.measure(torch.zeros(6, 3), changed.labels)
    assert float(figures[1]) == 1
