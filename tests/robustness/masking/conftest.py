"""Small models that an adversary can and cannot follow, and the images that they were made for."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 0.8
SIZE = 16
CLASSES = 4


def blobs(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose class is the corner that is a little brighter, under noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (n,), generator=generator)
    images = 0.5 + 0.12 * torch.randn(n, 3, SIZE, SIZE, generator=generator)
    half = SIZE // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        image[:, row * half : (row + 1) * half, column * half : (column + 1) * half] += 0.1
    return images.clamp(0, 1), labels


def small_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU(),
        nn.Flatten(), nn.Linear(24 * 16, CLASSES),
    )  # fmt: skip


def trained(adversarial: bool, steps: int = 100) -> nn.Module:
    from core_tuning.robustness.attack.pgd import perturb
    from core_tuning.robustness.attack.view import AttackView
    from core_tuning.robustness.budgets import make_budget

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    view = AttackView(model) if adversarial else None
    images, labels = blobs(1600, seed=1)
    for step in range(steps):
        chosen = torch.arange(64) + 64 * (step % 25)
        batch, truth = images[chosen], labels[chosen]
        if view is not None:
            view.refresh()
            batch = perturb(view, batch, truth, make_budget("l2", EPS, steps=5), seed=step)
        optimiser.zero_grad()
        F.cross_entropy(model(batch), truth).backward()
        optimiser.step()
    return model.eval()


@pytest.fixture(scope="session")
def images() -> tuple[Tensor, Tensor]:
    return blobs(100, seed=2)


@pytest.fixture(scope="session")
def robust_model() -> nn.Module:
    return trained(adversarial=True)


@pytest.fixture(scope="session")
def plain_model() -> nn.Module:
    return trained(adversarial=False)


@pytest.fixture(scope="session")
def row():
    """Make a row of an evaluation: an attack, the images right under it, and what differs."""
    from core_tuning.robustness.rows import Row, accuracy

    def make(attack, correct, n=100, eps_text="0.5", **more):
        counted = accuracy(torch.arange(n) < correct)
        facts = {
            "title": attack, "norm": "l2", "eps": 0.5, "space": "input", "robust": counted.percent,
            "images": "1" * correct + "0" * (n - correct), "after": [], "zero_gradients": 0.012,
            "largest_l2_native": 0.0625, "notes": [], "warnings": [],
            "versions": {"torch": "2.15.0"},
        }  # fmt: skip
        return Row(
            attack=attack, correct=correct, n=n, low=counted.low, high=counted.high,
            eps_text=eps_text, **{**facts, **more},
        )  # fmt: skip

    return make
