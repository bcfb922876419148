"""The masking checks on models: what hides its gradients is flagged, what does not is not."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest
import torch
from torch import nn

from core_tuning.robustness.masking import check_masking
from core_tuning.robustness.pixels import group

NAMES = [
    "unbounded", "monotone", "effort", "single_step", "black_box", "zero_gradients", "margin",
]  # fmt: skip


class Composed(nn.Module):
    """A function, a model, a function."""

    def __init__(self, before, model, after=lambda logits: logits):
        super().__init__()
        self.before, self.model, self.after = before, model, after
        self.eval()

    def forward(self, images):
        return self.after(self.model(self.before(images)))


def unchanged(images):
    return images


def quantised(images):
    return torch.round(images * 8) / 8


def shattered(images):
    return images + 0.02 * torch.sin(2000 * images)


def checks_of(model, images, norm="l2", eps=0.8, n=100, **options):
    batch = group(images[0][:n], images[1][:n])
    options = {"seed": 0, "batch_size": 50, **options}
    return {check.name: check for check in check_masking(model, batch, norm, eps, **options)}


def percent(check):
    """The percentages that a check names."""
    return [float(number) for number in re.findall(r": ([\d.]+)%", check.value)]


def flags(checks):
    return {name for name, check in checks.items() if check.flagged}


@pytest.fixture
def few_queries(monkeypatch):
    """For tests that the black box is no part of, which takes most of their time."""
    monkeypatch.setattr("core_tuning.robustness.masking.SQUARE_QUERIES", 30)


def test_an_adversarially_trained_model_raises_no_flag(robust_model, images, capsys):
    checks = checks_of(robust_model, images)
    assert list(checks) == NAMES
    assert flags(checks) == set()
    # The budget is one that tells attacks apart, or nothing would be shown.
    pgd10, one_step = percent(checks["single_step"])
    assert 30 < pgd10 < 90 < one_step + 10
    assert percent(checks["unbounded"]) == [0]
    heard = capsys.readouterr().err
    assert "Square" in heard and "PGD-10" in heard
    json.dumps([asdict(check) for check in checks.values()])


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.8), ("linf", 8 / 255)])
def test_a_plain_model_raises_no_flag(plain_model, images, norm, eps):
    assert flags(checks_of(plain_model, images, norm, eps, n=60)) == set()


@pytest.mark.usefixtures("few_queries")
def test_logits_times_1000_are_flagged(plain_model, images):
    scaled = Composed(unchanged, plain_model, lambda logits: 1000 * logits)
    checks = checks_of(scaled, images, n=50)
    assert {"zero_gradients", "margin"} <= flags(checks)
    assert percent(checks["zero_gradients"])[0] == 100


@pytest.mark.usefixtures("few_queries")
def test_a_quantiser_without_gradient_is_flagged(robust_model, images):
    checks = checks_of(Composed(quantised, robust_model), images, n=40)
    assert {"zero_gradients", "unbounded"} <= flags(checks)


@pytest.mark.usefixtures("few_queries")
def test_a_model_that_cuts_the_graph_is_flagged(plain_model, images):
    cut = Composed(torch.Tensor.detach, plain_model)
    checks = checks_of(cut, images, "linf", 8 / 255, n=30)
    assert {"zero_gradients", "unbounded"} <= flags(checks)


def test_shattered_gradients_are_flagged_by_the_black_box(plain_model, images):
    checks = checks_of(Composed(shattered, plain_model), images, eps=1.2, n=40)
    assert checks["zero_gradients"].flagged is False
    assert checks["black_box"].flagged


@pytest.mark.usefixtures("few_queries")
def test_the_same_seed_gives_the_same_and_no_global_state_changes(robust_model, images):
    modes = [module.training for module in robust_model.modules()]
    before = torch.get_rng_state()
    first = checks_of(robust_model, images, n=12)
    assert torch.equal(torch.get_rng_state(), before)
    assert checks_of(robust_model, images, n=12) == first
    assert [module.training for module in robust_model.modules()] == modes


@pytest.mark.usefixtures("few_queries")
def test_a_model_that_is_never_right_is_no_reason_for_a_flag(plain_model, images):
    batch = group(images[0][:10], (images[1][:10] + 1) % 4)
    checks = check_masking(plain_model, batch, "l2", 0.5, seed=0, batch_size=5)
    assert not any(check.flagged for check in checks)


@pytest.mark.usefixtures("few_queries")
def test_a_large_eps_stays_within_the_range(plain_model, images):
    checks = checks_of(plain_model, images, "linf", 0.5, n=8)
    assert re.findall("eps (.*?):", checks["monotone"].value) == ["0", "0.125", "0.25", "0.5", "1"]
