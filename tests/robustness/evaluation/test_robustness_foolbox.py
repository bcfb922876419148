"""Robust accuracy agrees with foolbox's PGD, written by others, at the same budget."""

from __future__ import annotations

import pytest
import torch

from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.measure import measure
from core_tuning.robustness.pixels import group
from core_tuning.robustness.protocols import pgd

# Enough for both to get as far as they can: after 10 steps the random starts, which foolbox draws
# otherwise under L2, still tell.
STEPS = 50
PGD = pgd("pgd50", "PGD-50", STEPS)

foolbox = pytest.importorskip("foolbox")


@pytest.fixture(scope="module")
def weak(kit):
    """A model trained for long enough to be right on most images, and 400 new images."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = kit.train(kit.Tiny(4), *kit.coloured(256, 4), steps=150)
    return model, *kit.coloured(400, 4, seed=5)


@pytest.mark.parametrize(
    ("norm", "eps"), [("linf", 4 / 255), ("linf", 8 / 255), ("l2", 0.25), ("l2", 0.5)]
)
def test_within_a_point_of_foolbox(weak, norm, eps):
    model, images, labels = weak
    ours = measure(
        model, AttackView(model), [group(images, labels)], PGD, norm, eps,
        seed=0, batch_size=100,
    ).robust  # fmt: skip
    attack = {
        "linf": foolbox.attacks.LinfProjectedGradientDescentAttack,
        "l2": foolbox.attacks.L2ProjectedGradientDescentAttack,
    }[norm](rel_stepsize=2.5 / STEPS, steps=STEPS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
        _, _, fooled = attack(wrapped, images, labels, epsilons=eps)
    accuracy, theirs = 100 * ours.float().mean(), 100 * (~fooled).float().mean()
    assert 5 < accuracy < 95, "the comparison would tell nothing"
    assert abs(float(accuracy - theirs)) <= 1
