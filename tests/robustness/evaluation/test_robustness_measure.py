"""Counting: intervals, who is attacked by what, seeds, and going on after a kill."""

from __future__ import annotations

import contextlib
from functools import partial

import pytest
import torch
from torch import nn

from core_tuning.errors import UserError
from core_tuning.robustness.attack.view import AttackView
from core_tuning.robustness.measure import as_float, measure, strict_float32
from core_tuning.robustness.pixels import Group, group
from core_tuning.robustness.protocols import PROTOCOLS, Protocol, Stage
from core_tuning.robustness.rows import Rows, accuracy

SHARED = {"seed": 0, "batch_size": 4}


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(0, 10, 0, 27.7533), (10, 10, 72.2467, 100), (7, 10, 39.6778, 89.2209), (1, 1, 20.6549, 100)],
)
def test_intervals_are_wilsons(correct, n, low, high):
    """By his formula (1927), computed by hand."""
    found = accuracy(torch.arange(n) < correct)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)
    assert found.percent == pytest.approx(100 * correct / n)


class FirstPixel(nn.Module):
    """Class 1 where the first pixel of red is above 0.5, else class 0."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        red = self.scale * images[:, 0, 0, 0]
        return torch.stack([0.5 - red, red - 0.5], dim=1)


def first_pixel():
    """That model, and its view."""
    model = FirstPixel().eval()
    return model, AttackView(model)


class Recorder:
    """Sets the first pixel of those images to 0 whose second pixel is below a threshold."""

    def __init__(self, threshold):
        self.threshold = threshold
        self.calls = []

    def __call__(self, view, images, labels, norm, eps, seed):
        self.calls.append((len(images), seed))
        changed = images.clone()
        changed[images[:, 0, 0, 1] < self.threshold, 0, 0, 0] = 0.0
        return changed


def ramp(n=10):
    """All of class 1; the second pixel grows from 0 to 0.9."""
    images = torch.full((n, 3, 2, 2), 1.0)
    images[:, 0, 0, 1] = torch.arange(n) / n
    return [group(images, torch.ones(n, dtype=torch.int64))]


def staged(*thresholds):
    attacks = [Recorder(threshold) for threshold in thresholds]
    stages = tuple(Stage(f"stage {i}", attack, 1) for i, attack in enumerate(attacks))
    return attacks, Protocol("staged", "Staged", stages)


def one(attack):
    return Protocol("one", "One", (Stage("one", attack),))


def test_later_stages_attack_only_what_is_still_right():
    images = ramp()
    images[0].labels[9] = 0  # wrong without an attack: not robust, and not attacked
    attacks, protocol = staged(0.35, 0.65)
    done = []
    found = measure(
        *first_pixel(), images, protocol, "linf", 1.0, **SHARED,
        on_work=done.append,
    )  # fmt: skip
    assert [size for size, _ in attacks[0].calls] == [4, 4, 1]
    assert [size for size, _ in attacks[1].calls] == [4, 1]
    assert found.robust.tolist() == [False] * 7 + [True] * 2 + [False]
    assert found.lost == [1] * 4 + [2] * 3 + [3] * 2 + [0]
    assert int(found.is_right_after(1).sum()) == 5
    assert sum(done) == 2 * 10


def test_every_batch_and_stage_has_a_seed_of_its_own():
    attacks, protocol = staged(0.1, 0.1)
    found = measure(*first_pixel(), ramp(), protocol, "linf", 1.0, **SHARED)
    seeds = [seed for attack in attacks for _, seed in attack.calls]
    assert len(set(seeds)) == len(seeds) == 6
    again, protocol = staged(0.1, 0.1)
    measure(*first_pixel(), ramp(), protocol, "linf", 1.0, **SHARED)
    assert [seed for attack in again for _, seed in attack.calls] == seeds
    assert int(found.robust.sum()) == 9


def test_the_model_itself_judges():
    """A view that takes everything for fooled changes nothing."""

    def keep(view, images, labels, norm, eps, seed):
        return images

    class Wrong(AttackView):
        def forward(self, images):
            return -super().forward(images)

    wrong_view = Wrong(FirstPixel())
    found = measure(FirstPixel(), wrong_view, ramp(), one(keep), "l2", 1, **SHARED)
    assert found.robust.all()


def test_images_of_several_sizes_are_one_measurement():
    """Each batch is of one size; what is found goes to the images' places."""
    [(images, labels, _)] = ramp()
    large = torch.nn.functional.pad(images, (0, 2))
    odd = torch.arange(10) % 2 == 1
    groups = [
        Group(images[~odd], labels[~odd], torch.arange(10)[~odd]),
        Group(large[odd], labels[odd], torch.arange(10)[odd]),
    ]
    attacks, protocol = staged(0.35, 0.65)
    found = measure(*first_pixel(), groups, protocol, "linf", 1.0, **SHARED)
    assert [size for size, _ in attacks[0].calls] == [4, 1, 4, 1]
    assert found.robust.tolist() == [False] * 7 + [True] * 3


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", range(1, 7))
def test_going_on_after_a_kill_repeats_nothing(tmp_path, after):
    whole, protocol = staged(0.35, 0.65)
    expected = measure(*first_pixel(), ramp(), protocol, "linf", 1.0, **SHARED)
    wanted = [call for attack in whole for call in attack.calls]
    attacks, protocol = staged(0.35, 0.65)
    rows = Rows(tmp_path)

    def stop(work):
        if sum(len(attack.calls) for attack in attacks) >= after:
            raise Killed

    arguments = (*first_pixel(), ramp(), protocol, "linf", 1.0)
    with contextlib.suppress(Killed):
        measure(*arguments, **SHARED, save=partial(rows.save, "key"), on_work=stop)
    assert rows.unfinished("another", 10, 2) is None
    found = measure(*arguments, **SHARED, outcome=rows.unfinished("key", 10, 2))
    assert [call for attack in attacks for call in attack.calls] == wanted
    assert found == expected


def test_bytes_are_what_the_transforms_make_of_them():
    images = torch.arange(192, dtype=torch.uint8).view(1, 3, 8, 8)
    assert as_float(images).dtype == torch.float32
    torch.testing.assert_close(as_float(images), images / 255)


@pytest.mark.parametrize("shift", [-0.1, 0.2, float("nan")])
def test_images_outside_the_range_are_refused(shift):
    [(images, labels, _)] = ramp()
    shifted = [group(images + shift, labels)]
    with pytest.raises(UserError, match=r"expected finite values in \[0, 1\]"):
        measure(*first_pixel(), shifted, PROTOCOLS["fgsm"], "l2", 1, **SHARED)


@pytest.mark.parametrize("change", [0.3, float("nan")])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_an_attack_that_leaves_the_ball_is_not_believed(norm, change):
    protocol = one(lambda view, images, *_: images - change)
    with pytest.raises(RuntimeError, match="broke its budget"):
        measure(*first_pixel(), ramp(), protocol, norm, 0.2, **SHARED)


@pytest.mark.parametrize("change", [0.1, -0.1])
def test_an_attack_that_leaves_the_range_is_not_believed(change):
    protocol = one(lambda view, images, *_: images + change)
    with pytest.raises(RuntimeError, match=r"expected \[0, 1\]"):
        measure(*first_pixel(), ramp(), protocol, "linf", 0.2, **SHARED)


def test_zero_gradients_are_counted(tiny, kit):
    images = [group(*kit.coloured(8, 4))]
    shares = {}
    for scale in (1.0, 1e6):
        model = nn.Sequential(tiny.model, Scale(scale)).eval()
        found = measure(model, AttackView(model), images, PROTOCOLS["fgsm"], "linf", 0.01, **SHARED)
        shares[scale] = found.zero_gradients
    assert shares[1.0] == 0.0 and shares[1e6] > 0.5


def test_a_cut_graph_counts_as_zero_gradients(tiny, kit):
    model = nn.Sequential(Detach(), tiny.model).eval()
    for name in ("fgsm", "pgd10"):
        found = measure(
            model, AttackView(model), [group(*kit.coloured(8, 4))], PROTOCOLS[name], "linf", 0.01,
            **SHARED,
        )  # fmt: skip
        assert found.zero_gradients == 1.0


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, logits):
        return self.factor * logits


class Detach(nn.Module):
    def forward(self, images):
        return images.detach()


def test_strict_float32_ends_autocast_and_is_undone():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    weight = torch.rand(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (weight @ weight).dtype == torch.bfloat16
        with strict_float32(torch.device("cpu")):
            assert (weight @ weight).dtype == torch.float32
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
