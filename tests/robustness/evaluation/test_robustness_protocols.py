"""What each protocol does to images, and what it is called."""

from __future__ import annotations

import pytest
import torch

from core_tuning.robustness import protocols
from core_tuning.robustness.budgets import make_budget
from core_tuning.robustness.config import ATTACKS
from core_tuning.robustness.measure import measure
from core_tuning.robustness.pixels import group
from core_tuning.robustness.protocols import PROTOCOLS, choose_protocol


def test_names_and_titles():
    assert tuple(PROTOCOLS) == ATTACKS
    assert PROTOCOLS["pgd10"].title == "PGD-10 (paper protocol)"
    assert [stage.name for stage in PROTOCOLS["autoattack"].stages] == [
        "apgd-ce", "apgd-t", "fab-t", "square",
    ]  # fmt: skip
    assert len(PROTOCOLS["pgd50x10"].stages) == 10


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_single_step_is_the_gradients(tiny, kit, norm):
    images, labels = kit.coloured(6, 4)
    attacked = PROTOCOLS["fgsm"].stages[0].attack(tiny.view, images, labels, norm, 0.01, 0)
    start = images.clone().requires_grad_()
    torch.nn.functional.cross_entropy(tiny.model(start), labels).backward()
    for image, gradient, result in zip(images, start.grad, attacked, strict=True):
        step = gradient.sign() if norm == "linf" else gradient / gradient.norm()
        torch.testing.assert_close(result, (image + 0.01 * step).clamp(0, 1), atol=2e-6, rtol=0)


def test_single_step_without_a_gradient_stays():
    images = torch.rand(2, 3, 4, 4)
    weight = torch.zeros(48, 4)
    attacked = protocols.single_step(
        lambda x: x.flatten(1) @ weight, images, torch.tensor([0, 1]), "l2", 0.5, 0
    )
    assert torch.equal(attacked, images)


@pytest.mark.parametrize(("name", "steps"), [("pgd10", 10), ("pgd50x10", 50)])
def test_steps_of_the_budgets(tiny, kit, monkeypatch, name, steps):
    seen = []

    def record(view, images, labels, budget, *, seed):
        seen.append((budget, seed))
        return images

    monkeypatch.setattr(protocols, "perturb", record)
    images = torch.full((3, 3, kit.SIZE, kit.SIZE), 0.5)
    labels = tiny.model(images).argmax(dim=1)
    measure(
        tiny.model, tiny.view, [group(images, labels)], PROTOCOLS[name], "linf", 8 / 255,
        seed=7, batch_size=3,
    )  # fmt: skip
    assert {budget for budget, _ in seen} == {make_budget("linf", 8 / 255, steps=steps)}
    runs = 10 if name == "pgd50x10" else 1
    assert len(seen) == len({seed for _, seed in seen}) == runs


@pytest.mark.parametrize(
    ("classes", "attacks"),
    [
        (10, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (4, ["apgd-ce", "apgd-t", "fab-t", "square"]),
        (3, ["apgd-ce", "apgd-dlr", "fab-t", "square"]),
        (2, ["apgd-ce", "fab-t", "square"]),
    ],
)
def test_auto_attack_by_number_of_classes(classes, attacks):
    chosen = choose_protocol("autoattack", classes)
    assert [stage.name for stage in chosen.stages] == attacks
    if classes == 10:
        assert chosen.note == "" and chosen.title == "AutoAttack standard"
    elif classes == 4:
        assert "3 to target" in chosen.note and chosen.title == "AutoAttack standard"
    else:
        assert f"the model has {classes}" in chosen.note and ", ".join(attacks) in chosen.note
        assert "not standard" in chosen.title


def test_square_with_fewer_queries_says_so():
    assert choose_protocol("square", 4).title == "Square (black box)"
    fewer = choose_protocol("square", 4, queries=7)
    assert "7 queries" in fewer.title and fewer.stages[0].cost == 7
