"""Signs of masked gradients: nine checks, the attacks that they compare, and their thresholds.

A model whose gradients are useless resists the attacks that follow gradients, and no others
(Athalye et al. 2018, "Obfuscated gradients give a false sense of security", Section 3.1; Carlini
et al. 2019, "On evaluating adversarial robustness", Section 5). Two attacks are always compared
on the same images, and one counts as stronger if it leaves fewer by more than a margin in points
and by more than chance (exact one-sided McNemar test).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats
from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.files import append_line, field

from .attack.autoattack import check_pyautoattack
from .attack.pgd import check_torchattacks
from .attack.view import AttackView
from .budgets import describe_eps
from .measure import Outcome, measure, right_without_attack
from .pixels import Group
from .protocols import PROTOCOLS, Protocol, choose_protocol, margin_pgd, pgd, restarts
from .rows import Row, from_json, read_whole_lines

MANY_STEPS = 50
RESTARTS = 5
SQUARE_QUERIES = 1000
EPS_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# A model meets ten comparisons; at 1% each, and with the margins below, chance flags few.
SIGNIFICANCE = 0.01
# Where theory forbids any difference (monotone, single step, black box): what it may cost that
# the last iterate of PGD need not be its best.
ORDER_POINTS = 2.0
# PGD-50 with restarts against PGD-10, like AutoAttack against PGD-10 below: where accuracy falls
# steeply with eps, 7 to 9 points are lost by sound models too; masked ones lose tens.
EFFORT_POINTS = 10.0
# One loss against another at the same steps: sound models lose some 1 to 3 points to the margin,
# models with saturated logits tens.
LOSS_POINTS = 5.0
# Every image lies within the largest eps of every other, so 0% can be reached; an image or two
# on a flat spot do not defend.
LEFT_PERCENT = 1.0
# In float32 the gradient of cross-entropy vanishes only where the margin of the logits exceeds
# some 100 (exp(-104) rounds to zero); models trained to convergence have margins of 10 to 30.
ZERO_PERCENT = 1.0
# AutoAttack takes some 2 to 5 points more than PGD-10 from adversarially trained models, and tens
# from models with masked gradients (Croce & Hein 2020).
GAP_POINTS = 10.0
# pyautoattack's own alarm, which compares within one call and so cannot see attacks run apart;
# a single image of few does not show it.
SQUARE_POINTS, SQUARE_IMAGES = 0.2, 1
GRADIENT_ATTACKS = ("fgsm", "pgd10", "pgd50x10")


class About(NamedTuple):
    """What a sound evaluation shows, why it does, and the axes of the check's figure."""

    title: str
    meaning: str
    ylabel: str = "right under attack (%)"
    xlabel: str = ""


ABOUT = {
    "unbounded": About(
        "An attack without bounds wins",
        "With the largest eps any image can be turned into any other. What still stays right was "
        "not reached by the attack; it is not robust.",
    ),
    "monotone": About(
        "A larger eps leaves no more images right",
        "What breaks an image at one eps is allowed at every larger one. More images right at a "
        "larger eps mean that the attack got worse.",
        "right under PGD-10 (%)",
        "eps",
    ),
    "effort": About(
        "More steps and restarts change little",
        "If many more steps and restarts bring accuracy down by much, PGD-10 had not converged and "
        "its figure is too high.",
        xlabel="gradient steps",
    ),
    "single_step": About(
        "Iterations beat a single step",
        "PGD takes the step of FGSM and goes on. If one step does better, the gradients do not "
        "lead anywhere.",
    ),
    "black_box": About(
        "Gradients beat a black box",
        "Square sees scores alone, gradients see more. If Square does better, the gradients "
        "mislead.",
    ),
    "zero_gradients": About(
        "Gradients are there to follow",
        "Where the gradient is exactly zero or not finite, PGD stays at its random start, and its "
        "images count as robust.",
        "unusable gradients (%)",
    ),
    "margin": About(
        "The loss attacked makes little difference",
        "Cross-entropy saturates for confident models, the margin between two logits does not. If "
        "attacking the margin does much better, cross-entropy is blinded.",
    ),
    "gap": About(
        "AutoAttack takes little more than PGD-10",
        "AutoAttack chooses its steps itself and adds other losses and a black box. If it does "
        "much better than PGD-10, PGD-10 measures the attack and not the model.",
        "PGD-10 minus\nAutoAttack (points)",
    ),
    "square": About(
        "Square takes nothing that gradients left",
        "Square needs no gradient. AutoAttack's authors take it for a sign that gradients mislead "
        "if it breaks images that every attack along gradients has left.",
        "taken by Square\nbeyond gradients (points)",
    ),
}


class Check(NamedTuple):
    """One sign of masked gradients: looked for, and found or not.

    Attributes:
        name: a key of `ABOUT`.
        title: what a sound evaluation shows.
        flagged: whether it is not so.
        value: what was found, in words.
        expected: what raises no flag, in words.
        points: [x, y] or [label, y] of its figure, y in percent or points; [] if it was not run.
    """

    name: str
    title: str
    flagged: bool
    value: str
    expected: str
    points: list[Any]


class Checked(NamedTuple):
    """Checks at one budget, of so many images in one pixel space; a line of masking.jsonl."""

    norm: str
    eps: float
    images: int
    space: str
    checks: list[Check]

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self._asdict(), "checks": [check._asdict() for check in self.checks]}

    def with_rows(self, rows: Sequence[Row]) -> Checked:
        """Add the checks that compare rows, those of the same norm."""
        of_norm = [row for row in rows if row.norm == self.norm]
        return self._replace(checks=[*self.checks, gap_check(of_norm), square_check(of_norm)])


def read_checked(path: Path) -> list[Checked]:
    """Read what an earlier process has checked.

    Raises:
        UserError: the file is damaged.
    """
    found = []
    for line in read_whole_lines(path, Checked):
        checks: list[Any] = line.checks
        read = [
            from_json(Check, field({"check": each}, "check", dict, path), path) for each in checks
        ]
        found.append(line._replace(checks=read))
    return found


def write_checked(path: Path, found: Checked) -> None:
    """Add a line to the file that `read_checked` reads."""
    append_line(path, found.plain())


def check_masking(
    model: nn.Module,
    group: Group,
    norm: str,
    eps: float,
    *,
    seed: int,
    batch_size: int,
    on_progress: Callable[[str], None] = lambda message: None,
) -> list[Check]:
    """Look for signs of masked gradients in a model, at one budget.

    Costs at most some 500 gradient steps and 1000 forward passes an image; what an attack has
    brought down its restarts and later queries leave alone, so fragile models cost far less.

    Args:
        model: images in [0, 1] -> logits (n, K), in evaluation mode.
        group: images (n, 3, h, w) and labels. Some hundred are enough; with fewer than 50 little
            can be told from chance.
        norm: "l2" or "linf".
        eps: above 0; the budget whose robust accuracy is to be trusted.
        seed: of all random numbers; the global generators are left as they were.
        batch_size: images attacked at once.
        on_progress: is told what is about to run.

    Returns:
        Seven checks; `Checked.with_rows` makes two more of the evaluation's rows.

    Raises:
        UserError: no images, images outside [0, 1], eps 0 or beyond their range, or torchattacks
            or pyautoattack missing.
        ValueError: the model is in training mode.
    """
    check_torchattacks()
    check_pyautoattack()
    if model.training:
        raise ValueError("the model is in training mode: call its eval() first.")
    if len(group.labels) == 0 or eps <= 0:
        raise UserError(
            f"The masking checks got {len(group.labels)} images and eps {eps:g}: expected at least "
            "one image and an eps above 0."
        )
    view = AttackView(model)
    largest = 1.0 if norm == "linf" else math.sqrt(group.images[0].numel())

    def run(protocol: Protocol, eps: float, first: Tensor | None = None) -> tuple[Tensor, float]:
        """Which images (n,) stay right, and the percent of unusable gradients.

        `first` are those that the first stage has left, where it was run before.
        """
        on_progress(f"{protocol.title} at eps {describe_eps(norm, eps)}")
        right = len(protocol.stages) + 1
        done = None if first is None else Outcome((right * first.int()).tolist(), stages=1)
        found = measure(
            model, view, [group], protocol, norm, eps,
            seed=seed, batch_size=batch_size, outcome=done,
        )  # fmt: skip
        return found.robust, 100 * (found.zero_gradients or 0.0)

    single, zero_single = run(PROTOCOLS["fgsm"], eps)
    by_eps = {0.0: right_without_attack(model, [group], batch_size=batch_size)}
    for factor in EPS_FACTORS:
        radius = min(factor * eps, largest)
        by_eps[radius], zero = run(PROTOCOLS["pgd10"], radius)
        if factor == 1:
            pgd10, zero_pgd10 = by_eps[radius], zero
    many = pgd(MANY_STEPS, restarts(RESTARTS), f"PGD-{MANY_STEPS}", "many")
    first, _ = run(many._replace(stages=many.stages[:1]), eps)
    after_restarts, _ = run(many, eps, first)
    margin, _ = run(margin_pgd(MANY_STEPS), eps)
    squared, _ = run(choose_protocol("square", 0, queries=SQUARE_QUERIES), eps)
    both = many._replace(stages=(*many.stages[:1], *margin_pgd(MANY_STEPS).stages))
    unbounded, _ = run(both, largest)
    return [
        unbounded_check(unbounded, f"{largest:.4g}"),
        monotone_check(by_eps, partial(describe_eps, norm)),
        effort_check(pgd10, first, after_restarts),
        order_check("single_step", ("one step", single), ("PGD-10", pgd10)),
        order_check(
            "black_box",
            (f"Square, {SQUARE_QUERIES} queries", squared),
            (f"PGD-{MANY_STEPS}, {RESTARTS} restarts", after_restarts),
        ),
        zero_gradients_check(zero_single, zero_pgd10),
        margin_check(margin, first),
    ]


def _check(name: str, flagged: bool, value: str, expected: str, points: list[Any]) -> Check:
    return Check(name, ABOUT[name].title, flagged, value, expected, points)


def unbounded_check(left: Tensor, eps_text: str) -> Check:
    """Judge what stays right, (n,) bool, where an image may be turned into any other."""
    percent = _percent(left)
    found = f"{percent:.1f}% stay right at eps {eps_text}"
    points = [[f"PGD-{MANY_STEPS}\neps {eps_text}", percent]]
    return _check("unbounded", percent > LEFT_PERCENT, found, f"at most {LEFT_PERCENT:g}%", points)


def monotone_check(by_eps: Mapping[float, Tensor], describe: Callable[[float], str]) -> Check:
    """Judge what PGD-10 leaves right, (n,) bool for each eps in ascending order."""
    percent = {eps: _percent(right) for eps, right in by_eps.items()}
    lowest, rises = 0.0, []
    for eps, right in by_eps.items():
        if is_lower(by_eps[lowest], right, ORDER_POINTS):
            rises.append(
                f"{percent[lowest]:.1f}% at eps {describe(lowest)} and {percent[eps]:.1f}% at "
                f"{describe(eps)}"
            )
        if percent[eps] <= percent[lowest]:
            lowest = eps
    falls = f"{percent[0.0]:.1f}% at eps 0, {percent[lowest]:.1f}% at {describe(lowest)}"
    expected = f"no rise of more than {ORDER_POINTS:g} points and chance"
    points = [list(point) for point in percent.items()]
    return _check("monotone", bool(rises), "; ".join(rises) or falls, expected, points)


def effort_check(pgd10: Tensor, first: Tensor, after_restarts: Tensor) -> Check:
    """Judge what PGD-10, PGD-50 and all restarts of PGD-50 leave right, each (n,) bool."""
    few, many, most = map(_percent, (pgd10, first, after_restarts))
    return _check(
        "effort",
        is_lower(after_restarts, pgd10, EFFORT_POINTS),
        f"PGD-10 {few:.1f}%, PGD-{MANY_STEPS} with {RESTARTS} restarts {most:.1f}%",
        f"no more than {EFFORT_POINTS:g} points and chance apart",
        [["10", few], [f"{MANY_STEPS}", many], [f"{RESTARTS} × {MANY_STEPS}", most]],
    )


def order_check(name: str, weaker: tuple[str, Tensor], stronger: tuple[str, Tensor]) -> Check:
    """Judge whether what must be the weaker attack is the stronger one, each (n,) bool."""
    percent = {label: _percent(right) for label, right in (weaker, stronger)}
    return _check(
        name,
        is_lower(weaker[1], stronger[1], ORDER_POINTS),
        "; ".join(f"{label}: {share:.1f}%" for label, share in percent.items()),
        f"the first no more than {ORDER_POINTS:g} points and chance lower",
        [[label.replace(", ", "\n"), share] for label, share in percent.items()],
    )


def zero_gradients_check(at_images: float, in_attack: float) -> Check:
    """Judge the percent of gradients that are exactly zero or not finite."""
    return _check(
        "zero_gradients",
        max(at_images, in_attack) > ZERO_PERCENT,
        f"{at_images:.1f}% zero or not finite at the images, {in_attack:.1f}% in PGD-10",
        f"at most {ZERO_PERCENT:g}%",
        [["at the\nimages", at_images], ["in PGD-10", in_attack]],
    )


def margin_check(margin: Tensor, cross_entropy: Tensor) -> Check:
    """Judge what PGD-50 on the margin and on cross-entropy leave right, each (n,) bool."""
    usual, other = _percent(cross_entropy), _percent(margin)
    return _check(
        "margin",
        is_lower(margin, cross_entropy, LOSS_POINTS),
        f"PGD-{MANY_STEPS} on cross-entropy {usual:.1f}%, on the margin {other:.1f}%",
        f"the margin no more than {LOSS_POINTS:g} points and chance lower",
        [["cross-\nentropy", usual], ["margin", other]],
    )


def gap_check(rows: Sequence[Row]) -> Check:
    """Compare PGD-10 with AutoAttack in the rows of one norm; without them nothing is flagged.

    Where the two were run on different numbers of images, a gap counts only if their intervals do
    not meet.
    """
    points: list[Any] = []
    flagged = False
    for budget, found in _by_budget(rows).items():
        if {"pgd10", "autoattack"} <= found.keys():
            weak, strong = found["pgd10"], found["autoattack"]
            gap = weak.accuracy.percent - strong.accuracy.percent
            points.append([budget, gap])
            apart = weak.n == strong.n or strong.high < weak.low
            flagged = flagged or (gap > GAP_POINTS and apart)
    value = "not run: no budget has both PGD-10 and AutoAttack"
    if points:
        label, gap = max(points, key=lambda point: point[1])
        value = f"at most {gap:.1f} points, at {' '.join(label.split())}"
    return _check("gap", flagged, value, f"at most {GAP_POINTS:g} points", points)


def square_check(rows: Sequence[Row]) -> Check:
    """Compare Square with the attacks along gradients in the rows of one norm.

    Twice, where the rows are there: Square alone against the best of the others alone, and what
    it still takes in AutoAttack from what the others have left there.
    """
    points: list[Any] = []
    flagged = False
    for budget, found in _by_budget(rows).items():
        strong, alone = found.get("autoattack"), found.get("square")
        stages = dict(strong.after) if strong else {}
        before = [left for name, left in stages.items() if name != "square"]
        others = [found[name].correct for name in GRADIENT_ATTACKS if name in found] + before
        if alone and others:
            beyond = 100 * (min(others) - alone.correct) / alone.n
            points.append([f"{budget}\nalone", beyond])
            flagged = flagged or beyond > ORDER_POINTS
        if strong and before and "square" in stages:
            taken = min(before) - stages["square"]
            beyond = 100 * taken / strong.n
            points.append([f"{budget}\nAutoAttack", beyond])
            flagged = flagged or (taken > SQUARE_IMAGES and beyond > SQUARE_POINTS)
    value = "not run: no budget has both Square and an attack along gradients"
    if points:
        label, beyond = max(points, key=lambda point: point[1])
        value = f"at most {beyond:+.1f} points, at {' '.join(label.split())}"
    expected = (
        f"alone at most {ORDER_POINTS:g} points better, in AutoAttack at most {SQUARE_POINTS:g} "
        f"points or {SQUARE_IMAGES} image"
    )
    return _check("square", flagged, value, expected, points)


def _by_budget(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Rows by attack, by a label of their budget."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(f"{row.norm} {row.eps_text}\n{row.space}", {})[row.attack] = row
    return found


def is_lower(attacked: Tensor, reference: Tensor, points: float) -> bool:
    """Whether an attack leaves fewer images right, by more than a margin and more than chance.

    Args:
        attacked: (n,) bool, right under the one.
        reference: (n,) bool, the same images under the other.
        points: margin in percent of n.
    """
    lost = int((reference & ~attacked).sum())
    won = int((attacked & ~reference).sum())
    if 100 * (lost - won) <= points * len(attacked):
        return False
    return float(stats.binom.sf(lost - 1, lost + won, 0.5)) < SIGNIFICANCE


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
