"""Signs of masked gradients: nine checks, the attacks that they compare, and their thresholds.

A model whose gradients are useless resists the attacks that follow gradients, and no others
(Athalye et al. 2018, "Obfuscated gradients give a false sense of security", Section 3.1; Carlini
et al. 2019, "On evaluating adversarial robustness", Section 5). Two attacks are always compared
on the same images, and one counts as stronger if it leaves fewer by more than a margin in points
and by more than chance (exact one-sided McNemar test).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from scipy import stats
from torch import Tensor, nn

from .attack.view import AttackView
from .budgets import describe_eps
from .measure import measure, right_without_attack
from .pixels import Group
from .protocols import (
    GRADIENT_PROTOCOLS,
    PROTOCOLS,
    Protocol,
    choose_protocol,
    descend_margin,
    pgd,
)
from .rows import Outcome, Row

MANY_STEPS = 50
RESTARTS = 5
SQUARE_QUERIES = 1000
EPS_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# A model meets ten comparisons; at 1% each, and with the limits below, chance flags few.
SIGNIFICANCE = 0.01
# pyautoattack's own alarm, which compares within one call and so cannot see attacks run apart;
# a single image of few does not show it.
SQUARE_POINTS, SQUARE_IMAGES = 0.2, 1


class About(NamedTuple):
    """What a sound evaluation shows, why it does, and when it does not.

    Attributes:
        title: what it shows.
        meaning: why.
        limit: of the percent or points that raise no flag.
        expected: that in words.
    """

    title: str
    meaning: str
    limit: float
    expected: str = "the last no more than {:g} points and chance below the first"


ABOUT = {
    "unbounded": About(
        "An attack without bounds wins",
        "With the largest eps any image can be turned into any other. What still stays right was "
        "not reached by the attack; it is not robust.",
        # So 0% can be reached; an image or two on a flat spot do not defend.
        1.0,
        "at most {:g}%",
    ),
    # Where theory forbids any difference (monotone, single step, black box), 2 points are what it
    # may cost that the last iterate of PGD need not be its best.
    "monotone": About(
        "A larger eps leaves no more images right",
        "What breaks an image at one eps is allowed at every larger one. More images right at a "
        "larger eps mean that the attack got worse.",
        2.0,
        "no rise of more than {:g} points and chance",
    ),
    "effort": About(
        "More steps and restarts change little",
        "If many more steps and restarts bring accuracy down by much, PGD-10 had not converged and "
        "its figure is too high.",
        # Where accuracy falls steeply with eps, sound models lose 7 to 9 points too; masked ones
        # lose tens.
        10.0,
    ),
    "single_step": About(
        "Iterations beat a single step",
        "PGD takes the step of FGSM and goes on. If one step does better, the gradients do not "
        "lead anywhere.",
        2.0,
    ),
    "black_box": About(
        "Gradients beat a black box",
        "Square sees scores alone, gradients see more. If Square does better, gradients mislead.",
        2.0,
    ),
    "zero_gradients": About(
        "Gradients are there to follow",
        "Where the gradient is exactly zero or not finite, PGD stays at its random start, and its "
        "images count as robust.",
        # In float32 the gradient of cross-entropy vanishes only where the margin of the logits
        # exceeds some 100 (exp(-104) rounds to zero); trained models have margins of 10 to 30.
        1.0,
        "at most {:g}%",
    ),
    "margin": About(
        "The loss attacked makes little difference",
        "Cross-entropy saturates for confident models, the margin between two logits does not. If "
        "attacking the margin does much better, cross-entropy is blinded.",
        # Sound models lose some 1 to 3 points to the margin, with saturated logits tens.
        5.0,
    ),
    "gap": About(
        "AutoAttack takes little more than PGD-10",
        "AutoAttack chooses its steps itself and adds other losses and a black box. If it does "
        "much better than PGD-10, PGD-10 measures the attack and not the model.",
        # It takes some 2 to 5 points more from adversarially trained models, and tens from models
        # with masked gradients (Croce & Hein 2020).
        10.0,
        "at most {:g} points",
    ),
    "square": About(
        "Square takes nothing that gradients left",
        "Square needs no gradient. AutoAttack's authors take it for a sign that gradients mislead "
        "if it breaks images that every attack along gradients has left.",
        2.0,
        f"alone at most {{:g}} points better, in AutoAttack at most {SQUARE_POINTS:g} points or "
        f"{SQUARE_IMAGES} image",
    ),
}


@dataclass(frozen=True)
class Check:
    """One sign of masked gradients: looked for, and found or not.

    Attributes:
        name: a key of `ABOUT`.
        flagged: whether a sound evaluation would look otherwise.
        value: what was found, in words.
        ran: whether there was anything to compare.
    """

    name: str
    flagged: bool
    value: str
    ran: bool = True

    @property
    def about(self) -> About:
        """What it looks for."""
        return ABOUT[self.name]

    @property
    def expected(self) -> str:
        """What raises no flag, in words."""
        return self.about.expected.format(self.about.limit)


@dataclass(frozen=True)
class Checked:
    """Checks at one budget, of so many images in one pixel space; a line of masking.jsonl."""

    norm: str
    eps: float
    images: int
    space: str
    checks: list[Check]

    def with_rows(self, rows: Sequence[Row]) -> Checked:
        """Add the checks that compare rows, those of the same norm."""
        of_norm = [row for row in rows if row.norm == self.norm]
        return replace(self, checks=[*self.checks, gap_check(of_norm), square_check(of_norm)])


def check_masking(
    model: nn.Module, group: Group, norm: str, eps: float, *, seed: int, batch_size: int
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

    Returns:
        Seven checks; `Checked.with_rows` makes two more of the evaluation's rows.
    """
    view = AttackView(model)
    largest = 1.0 if norm == "linf" else math.sqrt(group.images[0].numel())

    def run(protocol: Protocol, eps: float, first: Outcome | None = None) -> Outcome:
        """Attack at an eps; `first` is what came of the first stage, where it was run before."""
        print(f"masking: {protocol.title}, {norm} eps {describe_eps(norm, eps)}", file=sys.stderr)
        done = first and Outcome.start(first.robust, len(protocol.stages), done=1)
        return measure(
            model, view, [group], protocol, norm, eps,
            seed=seed, batch_size=batch_size, outcome=done,
        )  # fmt: skip

    single = run(PROTOCOLS["fgsm"], eps)
    weak = {radius: run(PROTOCOLS["pgd10"], radius)
            for radius in (min(factor * eps, largest) for factor in EPS_FACTORS)}  # fmt: skip
    pgd10 = weak[eps]
    many = pgd("many", f"PGD-{MANY_STEPS}", MANY_STEPS, restarts=RESTARTS)
    on_margin = pgd("margin", f"margin PGD-{MANY_STEPS}", MANY_STEPS, attack=descend_margin)
    first = run(many._replace(stages=many.stages[:1]), eps)
    most = run(many, eps, first).robust
    margin = run(on_margin, eps).robust
    squared = run(choose_protocol("square", 0, queries=SQUARE_QUERIES), eps).robust
    unbounded = run(many._replace(stages=(many.stages[0], *on_margin.stages)), largest).robust
    clean = right_without_attack(model, [group], batch_size=batch_size)
    by_eps = {0.0: clean, **{radius: outcome.robust for radius, outcome in weak.items()}}
    zeros = {"at the images": 100 * single.zero_gradients,
             "in PGD-10": 100 * pgd10.zero_gradients}  # fmt: skip
    repeated = f"{RESTARTS} × {MANY_STEPS} steps"
    efforts = {"10 steps": pgd10.robust, f"{MANY_STEPS} steps": first.robust, repeated: most}
    return [
        limit_check("unbounded", {f"PGD-{MANY_STEPS}, eps {largest:.4g}": _percent(unbounded)}),
        monotone_check(by_eps, partial(describe_eps, norm)),
        order_check("effort", efforts),
        order_check("single_step", {"PGD-10": pgd10.robust, "one step": single.robust}),
        order_check("black_box", {repeated: most, f"Square, {SQUARE_QUERIES} queries": squared}),
        limit_check("zero_gradients", zeros),
        order_check("margin", {"cross-entropy": first.robust, "margin": margin}),
    ]


def limit_check(name: str, percent: Mapping[str, float]) -> Check:
    """Judge percentages, by label, of which none may exceed the check's limit."""
    return Check(name, max(percent.values()) > ABOUT[name].limit, _listed(percent))


def order_check(name: str, right: Mapping[str, Tensor]) -> Check:
    """Judge what attacks leave right, (n,) bool by label: the last may not be the strongest."""
    first, *_, last = right.values()
    percent = {label: _percent(each) for label, each in right.items()}
    return Check(name, is_lower(last, first, ABOUT[name].limit), _listed(percent))


def monotone_check(by_eps: Mapping[float, Tensor], describe: Callable[[float], str]) -> Check:
    """Judge what PGD-10 leaves right, (n,) bool for each eps in ascending order."""
    percent = {f"eps {describe(eps)}": _percent(right) for eps, right in by_eps.items()}
    strongest, rises = by_eps[0.0], False
    for right in by_eps.values():
        rises = rises or is_lower(strongest, right, ABOUT["monotone"].limit)
        if right.sum() <= strongest.sum():
            strongest = right
    return Check("monotone", rises, _listed(percent))


def _listed(percent: Mapping[str, float]) -> str:
    return "; ".join(f"{label}: {share:.1f}%" for label, share in percent.items())


def gap_check(rows: Sequence[Row]) -> Check:
    """Compare PGD-10 with AutoAttack in the rows of one norm; without them nothing is flagged."""
    gaps = {
        budget: found["pgd10"].robust - found["autoattack"].robust
        for budget, found in _by_budget(rows).items()
        if {"pgd10", "autoattack"} <= found.keys()
    }
    flagged = any(gap > ABOUT["gap"].limit for gap in gaps.values())
    return _compared("gap", flagged, gaps, "both PGD-10 and AutoAttack")


def square_check(rows: Sequence[Row]) -> Check:
    """Compare Square with the attacks along gradients in the rows of one norm.

    Twice, where the rows are there: Square alone against the best of the others alone, and what
    it still takes in AutoAttack from what the others have left there.
    """
    taken_beyond: dict[str, float] = {}
    flagged = False
    for budget, found in _by_budget(rows).items():
        strong, alone = found.get("autoattack"), found.get("square")
        stages = dict(strong.after) if strong else {}
        before = [left for name, left in stages.items() if name != "square"]
        others = [found[name].correct for name in GRADIENT_PROTOCOLS if name in found] + before
        if alone and others:
            beyond = 100 * (min(others) - alone.correct) / alone.n
            taken_beyond[f"{budget} alone"] = beyond
            flagged = flagged or beyond > ABOUT["square"].limit
        if strong and before and "square" in stages:
            taken = min(before) - stages["square"]
            beyond = 100 * taken / strong.n
            taken_beyond[f"{budget} AutoAttack"] = beyond
            flagged = flagged or (taken > SQUARE_IMAGES and beyond > SQUARE_POINTS)
    return _compared("square", flagged, taken_beyond, "both Square and an attack along gradients")


def _by_budget(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Rows by attack, by their budget."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(f"{row.norm} {row.eps_text}", {})[row.attack] = row
    return found


def _compared(name: str, flagged: bool, points: Mapping[str, float], needed: str) -> Check:
    if not points:
        return Check(name, False, f"not run: no budget has {needed}", ran=False)
    most = max(points, key=lambda at: points[at])
    return Check(name, flagged, f"at most {points[most]:+.1f} points, at {most}")


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
