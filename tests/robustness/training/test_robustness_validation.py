"""Robust accuracy for selection: judged on the model, in evaluation mode, clean errors counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from core_tuning.robustness.adversary import evaluate_robust
from core_tuning.robustness.attack.pgd import perturb
from core_tuning.robustness.budgets import make_budget
from core_tuning.training.seeds import derive_seed

pytest.importorskip("torchattacks")


class Brightness(nn.Module):
    """Calls an image bright (1) or dark (0), with a margin that grows with the mean."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        mean = images.mean((1, 2, 3))
        return self.scale * torch.stack([0.5 - mean, mean - 0.5], dim=1)


def brightness_loader(levels, labels, batch_size=2):
    images = torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    return DataLoader(TensorDataset(images, torch.tensor(labels)), batch_size=batch_size)


def test_an_image_is_robust_within_its_margin():
    """L-infinity 0.1 moves a mean by 0.1: margins of 0.05 fall, of 0.2 hold, errors count."""
    loader = brightness_loader([0.55, 0.7, 0.3, 0.45, 0.7], [1, 1, 0, 0, 0])
    budget = make_budget("linf", 0.1, steps=5)
    measured = evaluate_robust(Brightness(), loader, 2, budget=budget, seed=0)
    assert measured.plain.confusion().tolist() == [[2, 1], [0, 2]]
    assert measured.robust == 2
    assert measured.score == 40
    assert measured.summary()["top1"] == 80
    assert measured.zero_gradients == 0


def test_an_error_that_the_attack_would_mend_is_no_robust_image(monkeypatch):
    """An attack may by chance make a wrong image right; that is not robustness."""
    monkeypatch.setattr(
        "core_tuning.robustness.adversary.perturb",
        lambda view, images, labels, budget, seed: torch.ones_like(images),
    )
    loader = brightness_loader([0.3, 0.9], [1, 1])
    budget = make_budget("linf", 0.1)
    assert evaluate_robust(Brightness(), loader, 2, budget=budget, seed=0).robust == 1


def test_counts_equal_a_plain_loop(learner, batch):
    images, labels = batch
    loader = DataLoader(TensorDataset(images, labels), batch_size=4)
    budget = make_budget("l2", 0.3, steps=3)
    measured = evaluate_robust(learner, loader, 3, budget=budget, seed=7)
    learner.eval()
    right = 0
    for number, part in enumerate((slice(0, 4), slice(4, 6))):
        attacked = perturb(learner, images[part], labels[part], budget, seed=derive_seed(7, number))
        both = (learner(images[part]).argmax(1) == labels[part]) & (
            learner(attacked).argmax(1) == labels[part]
        )
        right += int(both.sum())
    assert measured.robust == right


def test_modes_are_restored_and_nothing_is_drawn(learner, batch):
    loader = DataLoader(TensorDataset(*batch), batch_size=4, generator=torch.Generator())
    before = torch.get_rng_state()
    evaluate_robust(learner, loader, 3, budget=make_budget("l2", 0.3, steps=1), seed=0)
    assert all(module.training for module in learner.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in learner.parameters())
