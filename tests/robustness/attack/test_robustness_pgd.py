"""perturb: stock torchattacks' images, and everything that torchattacks leaves open."""

import copy
import importlib.metadata

import pytest
import torch
import torchattacks
from torch import nn

from core_tuning.errors import UserError
from core_tuning.robustness.attack import pgd
from core_tuning.robustness.attack.pgd import check_torchattacks, perturb
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.budgets import Budget, make_budget

BUDGETS = {"linf": make_budget("linf", 8 / 255), "l2": make_budget("l2", 0.5)}
STOCK = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}


def stock(model, images, labels, budget, seed):
    attack = STOCK[budget.norm](model, budget.eps, budget.step_size, budget.steps)
    torch.manual_seed(seed)
    return attack(images, labels)


@pytest.mark.parametrize("norm", BUDGETS)
def test_equal_to_stock_torchattacks(small_model, batch, norm):
    images, labels = batch()
    model = copy.deepcopy(small_model).eval()
    budget = BUDGETS[norm]
    for view in (model, AttackView(small_model, channels_last=False)):
        expected = stock(view, images, labels, budget, 7)
        assert (expected - images).abs().max() > 0.01
        adversarial = perturb(view, images, labels, budget, seed=7)
        assert (adversarial - expected).abs().max() <= 1e-6
        assert adversarial.dtype == torch.float32 and not adversarial.requires_grad
    other = perturb(model, images, labels, budget, seed=8)
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.parametrize("norm", BUDGETS)
def test_the_folded_view_attacks_as_well(small_model, batch, norm):
    """Rounding moves pixels whose gradient is near zero, not what the attack achieves."""
    images, labels = batch(12)
    model = copy.deepcopy(small_model).eval()
    adversarial = perturb(AttackView(small_model), images, labels, BUDGETS[norm], seed=0)
    reference = stock(model, images, labels, BUDGETS[norm], 0)

    def loss(x):
        return nn.functional.cross_entropy(model(x), labels).item()

    assert loss(adversarial) > loss(images)
    assert loss(adversarial) == pytest.approx(loss(reference), rel=1e-2)


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("channels_last", [True, False])
def test_channels_last(small_model, batch, norm, channels_last):
    """Stock PGDL2 crashes on either."""
    images, labels = batch()
    expected = perturb(AttackView(small_model), images, labels, BUDGETS[norm], seed=0)
    view = AttackView(small_model, channels_last=channels_last)
    strided = images.contiguous(memory_format=torch.channels_last)
    adversarial = perturb(view, strided, labels, BUDGETS[norm], seed=0)
    assert adversarial.is_contiguous(memory_format=torch.channels_last)
    assert not adversarial.is_contiguous()
    # Sign steps may differ by rounding where a gradient is near zero.
    assert ((adversarial - expected).abs() > 1e-4).float().mean() < 0.01
    assert expected.is_contiguous()


@pytest.mark.parametrize("norm", BUDGETS)
def test_no_perturbation(small_model, batch, norm):
    images, labels = batch()
    view = AttackView(small_model)
    same = perturb(view, images, labels, make_budget(norm, 0.0), seed=0)
    assert torch.equal(same, images) and same.data_ptr() != images.data_ptr()
    with pytest.raises(UserError, match="reach from"):
        perturb(view, images + 1, labels, make_budget(norm, 0.0), seed=0)
    assert perturb(view, images[:0], labels[:0], BUDGETS[norm], seed=0).shape == (0, 3, 12, 12)


@pytest.mark.parametrize("norm", BUDGETS)
def test_the_global_random_state_is_untouched(small_model, batch, norm):
    images, labels = batch()
    view = AttackView(small_model)
    before = torch.get_rng_state()
    perturb(view, images, labels, BUDGETS[norm], seed=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_exception_leaves_no_trace(small_model, batch):
    small_model[0].encoder.bn1.eval()
    modes = [module.training for module in small_model.modules()]
    images, labels = batch()

    class Broken(AttackView):
        def forward(self, images):
            torch.rand(3)
            raise ArithmeticError

    view = Broken(small_model)
    before = torch.get_rng_state()
    with pytest.raises(ArithmeticError):
        perturb(view, images, labels, BUDGETS["l2"], seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in small_model.modules()] == modes
    assert not any(module.training for module in view.modules())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("norm", BUDGETS)
def test_zero_gradients_are_no_step(small_model, batch, norm):
    images, labels = batch()
    nn.init.zeros_(small_model[1].weight)
    view = AttackView(small_model)
    adversarial = perturb(view, images, labels, BUDGETS[norm], seed=0)
    assert adversarial.isfinite().all()
    assert view.zero_gradient_share() == 1
    assert (adversarial != images).any()  # the random start


def test_a_model_in_training_mode_is_refused(small_model, batch):
    model = small_model.eval()
    model[0].encoder.bn1.train()
    with pytest.raises(ValueError, match="training mode: give an AttackView"):
        perturb(model, *batch(), BUDGETS["l2"], seed=0)


def test_no_grad_and_inference(small_model, batch):
    images, labels = batch()
    view = AttackView(small_model)
    expected = perturb(view, images, labels, BUDGETS["linf"], seed=0)
    with torch.no_grad():
        assert torch.equal(perturb(view, images, labels, BUDGETS["linf"], seed=0), expected)
    with torch.inference_mode():
        made = images.clone(), labels.clone()
    assert made[0].is_inference()
    adversarial = perturb(view, *made, BUDGETS["linf"], seed=0)
    assert torch.equal(adversarial, expected) and not adversarial.is_inference()
    learned = images.clone().requires_grad_()
    adversarial = perturb(view, learned, labels, BUDGETS["linf"], seed=0)
    assert torch.equal(adversarial, expected) and not adversarial.requires_grad


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * 255, r"reach from .* to 25\d.*\[0, 1\].*normalisation to the model"),
        (lambda x: x - 0.5, "reach from -0.4"),
        (lambda x: torch.where(x > 0.5, torch.nan, x), "reach from nan to nan: expected finite"),
        (lambda x: (x * 255).byte(), "torch.uint8 of shape .*divide bytes by 255"),
        (lambda x: x.half(), "torch.float16"),
        (lambda x: x[0], r"shape \(3, 12, 12\): expected"),
    ],
)
def test_images_that_are_refused(small_model, batch, change, words):
    images, labels = batch()
    for norm in BUDGETS:
        with pytest.raises(UserError, match=words):
            perturb(AttackView(small_model), change(images), labels, BUDGETS[norm], seed=0)


def test_an_eps_beyond_the_range_is_refused(small_model, batch):
    images, labels = batch()
    view = AttackView(small_model)
    with pytest.raises(UserError, match=r"eps is 21 in the l2 norm.*at most 20.7"):
        perturb(view, images, labels, make_budget("l2", 21), seed=0)


@pytest.mark.parametrize("norm", BUDGETS)
@pytest.mark.parametrize("wrong", ["norm", "range", "nan"])
def test_a_broken_attack_is_noticed(small_model, batch, monkeypatch, norm, wrong):
    class Wrong(STOCK[norm]):
        def forward(self, images, labels):
            if wrong == "nan":
                return images * torch.nan
            if wrong == "range":
                return images + 0.9 * self.eps / (20.8 if norm == "l2" else 1)
            return (images + 2 * self.eps).clamp(0, 1)

    monkeypatch.setattr(pgd, "_attacks", lambda: {norm: Wrong})
    images, labels = batch()
    images[0] = 1
    with pytest.raises(RuntimeError, match="broke its budget"):
        perturb(AttackView(small_model), images, labels, BUDGETS[norm], seed=0)


@pytest.mark.parametrize("eps", [1 / 255, 0.3, 1.0])
def test_large_images_and_budgets_pass_the_check(eps):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 224, 224).round(decimals=1)
    for norm, scale in (("linf", 1), ("l2", 100)):
        budget = make_budget(norm, eps * scale)
        perturb(AttackView(model), images, torch.tensor([0, 1]), budget, seed=0)


def test_the_attack_takes_its_steps(small_model, batch):
    """steps and step_size reach torchattacks: one tiny step stays near the random start."""
    images, labels = batch()
    model = copy.deepcopy(small_model).eval()
    tiny = Budget("linf", 0.1, 1, 1e-6)
    adversarial = perturb(model, images, labels, tiny, seed=5)
    torch.manual_seed(5)
    start = (images + torch.empty_like(images).uniform_(-0.1, 0.1)).clamp(0, 1)
    torch.testing.assert_close(adversarial, start, rtol=0, atol=2e-6)


def test_torchattacks_missing_or_old(monkeypatch):
    check_torchattacks()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.3.0")
    with pytest.raises(UserError, match=r"is 3.3.0: expected 3.5.*core-tuning\[robustness\]"):
        check_torchattacks()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "3.10")
    check_torchattacks()
    monkeypatch.setitem(__import__("sys").modules, "torchattacks", None)
    with pytest.raises(UserError, match=r"does not import .*core-tuning\[robustness\]"):
        check_torchattacks()

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError, match=r"does not import.*core-tuning\[robustness\]"):
        check_torchattacks()
