"""Each masking check by itself: which outcome flips it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core_tuning.robustness.masking import (
    gap_check,
    is_lower,
    limit_check,
    monotone_check,
    order_check,
    square_check,
)
from core_tuning.robustness.protocols import MarginView, descend_margin


def right(count, n=100):
    return torch.arange(n) < count


def test_a_difference_counts_beyond_chance_alone():
    # 6 of 6 discordant images on one side: p = 1/64; 7 of 7: p = 1/128.
    assert not is_lower(right(44), right(50), 2)
    assert is_lower(right(43), right(50), 2)
    # 20 against 10 discordant: p = 0.049, however large the difference.
    attacked = torch.cat([right(0, 20), right(10, 10), right(70, 70)])
    reference = torch.cat([right(20, 20), right(0, 10), right(70, 70)])
    assert not is_lower(attacked, reference, 2)
    assert not is_lower(right(50), right(43), 2)
    assert not is_lower(right(0), right(0), 0)


def test_a_difference_counts_beyond_the_margin_alone():
    assert not is_lower(right(9800, 10000), right(10000, 10000), 2)
    assert is_lower(right(9799, 10000), right(10000, 10000), 2)


@pytest.mark.parametrize("name", ["unbounded", "zero_gradients"])
def test_no_percentage_above_the_limit(name):
    assert not limit_check(name, {"a": 1.0, "b": 0.2}).flagged
    assert limit_check(name, {"a": 1.1, "b": 0.0}).flagged
    check = limit_check(name, {"a": 0.0, "b": 2.0})
    assert check.flagged and "b: 2.0%" in check.value


def test_monotone():
    falling = {0.0: right(90), 0.5: right(60), 1.0: right(20), 2.0: right(22)}
    assert not monotone_check(falling, str).flagged
    rising = {**falling, 2.0: right(40)}
    check = monotone_check(rising, str)
    assert check.flagged
    assert check.value.endswith("eps 1.0: 20.0%; eps 2.0: 40.0%")
    # A rise in small steps is one all the same.
    assert monotone_check(
        {0.0: right(90), 0.5: right(20), 1.0: right(25), 2.0: right(30)}, str
    ).flagged


def flagged(name, *left):
    """Judge attacks, in order, that leave so many of 100 images right."""
    return order_check(name, {f"attack {i}": right(n) for i, n in enumerate(left)}).flagged


def test_effort():
    assert not flagged("effort", 50, 48, 40)
    assert flagged("effort", 50, 48, 39)


@pytest.mark.parametrize("name", ["single_step", "black_box"])
def test_order(name):
    assert not flagged(name, 50, 60)
    assert flagged(name, 50, 40)
    many = {"strong": right(5000, 10000), "weak": right(4800, 10000)}
    assert not order_check(name, many).flagged
    assert order_check(name, {**many, "weak": right(4799, 10000)}).flagged


def test_margin():
    assert not flagged("margin", 50, 45)
    assert not flagged("margin", 50, 60)
    assert flagged("margin", 50, 40)


def test_gap(row):
    assert not gap_check([row("pgd10", 60), row("autoattack", 50)]).flagged
    check = gap_check([row("pgd10", 60), row("autoattack", 49)])
    assert check.flagged and "11.0 points" in check.value
    far = [row("pgd10", 60, eps_text="1"), row("autoattack", 30, eps_text="2")]
    assert not gap_check(far).flagged and not gap_check(far).ran


def test_without_autoattack_nothing_is_flagged(row):
    check = gap_check([row("pgd10", 60)])
    assert not check.flagged
    assert check.value.startswith("not run")


def automatic(row, *left, n=1000, **more):
    stages = ("apgd-ce", "apgd-t", "fab-t", "square")
    after = [[name, count] for name, count in zip(stages, left, strict=True)]
    return row("autoattack", left[-1], n, after=after, **more)


def test_square_within_autoattack_as_its_authors_warn(row):
    """pyautoattack warns where Square takes more than 0.2% of the images."""
    assert not square_check([automatic(row, 400, 390, 390, 388)]).flagged
    check = square_check([automatic(row, 400, 390, 390, 387)])
    assert check.flagged and "+0.3 points, at l2 0.5 AutoAttack" in check.value
    # One image of few is no sign, though it is more than 0.2%.
    assert not square_check([automatic(row, 40, 39, 39, 38, n=100)]).flagged
    assert square_check([automatic(row, 40, 39, 39, 37, n=100)]).flagged


def test_square_alone_against_the_best_of_the_others(row):
    pgd = [row("pgd10", 60), row("pgd50x10", 58)]
    assert not square_check([*pgd, row("square", 80)]).flagged
    assert not square_check([*pgd, row("square", 56)]).flagged
    check = square_check([*pgd, row("square", 55)])
    assert check.flagged and "+3.0 points, at l2 0.5 alone" in check.value
    # What AutoAttack has without its own Square counts among the others, what Square added not.
    strong = automatic(row, 60, 50, 50, 50, n=100)
    assert not square_check([*pgd, row("square", 49), strong]).flagged
    helped = automatic(row, 60, 59, 59, 20, n=100)
    check = square_check([row("square", 40), helped])
    assert check.value == "at most +39.0 points, at l2 0.5 AutoAttack"


def test_square_without_anything_to_compare_it_with(row):
    rand = row("autoattack", 3, after=[["apgd-ce", 5], ["apgd-dlr", 3]])
    elsewhere = [row("square", 1), row("pgd10", 9, eps_text="1")]
    for rows in ([row("square", 10)], [row("pgd10", 10)], elsewhere, [rand]):
        check = square_check(rows)
        assert not check.flagged and not check.ran
        assert check.value.startswith("not run")


def linear_model(scale=1.0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model[1].weight.copy_(scale * torch.randn(3, 12, generator=generator))
    return model


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_the_margin_view_has_the_margins_gradient_at_any_scale(scale):
    model = linear_model(scale)
    images = torch.rand(5, 3, 2, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = torch.tensor([0, 1, 2, 0, 1])
    logits = MarginView(model, labels)(images)
    assert torch.equal(logits, torch.zeros(5, 2))
    loss = nn.functional.cross_entropy(logits, torch.zeros(5, dtype=torch.long), reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    weight = model[1].weight.detach()
    for image, label, found in zip(images.detach(), labels.tolist(), gradient, strict=True):
        scores = model(image[None])[0]
        scores[label] = -torch.inf
        expected = -(weight[label] - weight[int(scores.argmax())]) / 2
        torch.testing.assert_close(found.flatten(), expected)


def test_pgd_on_the_margin_lowers_it_within_the_budget():
    model = linear_model(1e6)
    images = torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(2))
    labels = model(images).argmax(1)
    found = descend_margin(20, model, images, labels, "l2", 0.3, 0)
    assert (found - images).flatten(1).norm(dim=1).max() <= 0.3 + 1e-5

    def margins(batch):
        logits = model(batch)
        others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        return logits.gather(1, labels[:, None])[:, 0] - others

    assert (margins(found) < margins(images)).all()
