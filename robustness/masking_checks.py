"""What the outcomes of attacks say about masked gradients: nine checks and their thresholds.

A model whose gradients are useless resists the attacks that follow gradients, and no others
(Athalye et al. 2018, "Obfuscated gradients give a false sense of security", Section 3.1; Carlini
et al. 2019, "On evaluating adversarial robustness", Section 5). Two attacks are always compared
on the same images, and one counts as stronger if it leaves fewer by more than a margin in points
and by more than chance (exact one-sided McNemar test).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats
from torch import Tensor

from .masking_attacks import MANY_STEPS, RESTARTS, SQUARE_QUERIES

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
# on a flat spot are no defence.
LEFT_PERCENT = 1.0
# In float32 the gradient of cross-entropy vanishes only where the margin of the logits exceeds
# some 100 (exp(-104) rounds to zero); models trained to convergence have margins of 10 to 30.
ZERO_PERCENT = 1.0
# AutoAttack takes some 2 to 5 points more than PGD-10 from adversarially trained models, and tens
# from models with masked gradients (Croce & Hein 2020).
GAP_POINTS = 10.0
# pyautoattack's own alarm, which compares within one call and so cannot see attacks run apart;
# a single image of few is no sign.
SQUARE_POINTS, SQUARE_IMAGES = 0.2, 1
GRADIENT_ATTACKS = ("fgsm", "pgd10", "pgd50x10")


class Check(NamedTuple):
    """One sign of masked gradients: looked for, and found or not.

    Attributes:
        name: key of its figure and of its meaning in the report.
        title: what a sound evaluation shows.
        flagged: whether it is not so.
        value: what was found, in words.
        expected: what raises no flag, in words.
        points: [x, y] or [label, y] of its figure, y in percent or points.
    """

    name: str
    title: str
    flagged: bool
    value: str
    expected: str
    points: list[list[Any]]


def unbounded_check(left: Tensor, eps_text: str) -> Check:
    """Judge what stays right, (n,) bool, where an image may be turned into any other."""
    percent = _percent(left)
    return Check(
        "unbounded",
        "An attack without bounds wins",
        percent > LEFT_PERCENT,
        f"{percent:.1f}% stay right at eps {eps_text}",
        f"at most {LEFT_PERCENT:g}%",
        [[f"PGD-{MANY_STEPS}\neps {eps_text}", percent]],
    )


def monotone_check(by_eps: Mapping[float, Tensor], describe: Callable[[float], str]) -> Check:
    """Judge what PGD-10 leaves right, (n,) bool for each eps in ascending order."""
    lowest, rises = 0.0, []
    for eps, right in by_eps.items():
        if is_lower(by_eps[lowest], right, ORDER_POINTS):
            rises.append(
                f"{_percent(by_eps[lowest]):.1f}% at eps {describe(lowest)} and "
                f"{_percent(right):.1f}% at {describe(eps)}"
            )
        if _percent(right) <= _percent(by_eps[lowest]):
            lowest = eps
    return Check(
        "monotone",
        "A larger eps leaves no more images right",
        bool(rises),
        "; ".join(rises)
        or f"{_percent(by_eps[0.0]):.1f}% at eps 0, "
        f"{_percent(by_eps[lowest]):.1f}% at {describe(lowest)}",
        f"no rise of more than {ORDER_POINTS:g} points and chance",
        [[eps, _percent(right)] for eps, right in by_eps.items()],
    )


def effort_check(pgd10: Tensor, first: Tensor, after_restarts: Tensor) -> Check:
    """Judge what PGD-10, PGD-50 and all restarts of PGD-50 leave right, each (n,) bool."""
    return Check(
        "effort",
        "More steps and restarts change little",
        is_lower(after_restarts, pgd10, EFFORT_POINTS),
        f"PGD-10 {_percent(pgd10):.1f}%, PGD-{MANY_STEPS} with {RESTARTS} restarts "
        f"{_percent(after_restarts):.1f}%",
        f"no more than {EFFORT_POINTS:g} points and chance apart",
        [
            ["10", _percent(pgd10)],
            [f"{MANY_STEPS}", _percent(first)],
            [f"{RESTARTS} × {MANY_STEPS}", _percent(after_restarts)],
        ],
    )


def single_step_check(single: Tensor, pgd10: Tensor) -> Check:
    """Judge what one step and PGD-10 leave right, each (n,) bool."""
    return _order_check(
        "single_step", "Iterations beat a single step", ("one step", single), ("PGD-10", pgd10)
    )


def black_box_check(squared: Tensor, white_box: Tensor) -> Check:
    """Judge what Square and PGD-50 with restarts leave right, each (n,) bool."""
    return _order_check(
        "black_box",
        "Gradients beat a black box",
        (f"Square, {SQUARE_QUERIES} queries", squared),
        (f"PGD-{MANY_STEPS}, {RESTARTS} restarts", white_box),
    )


def zero_gradients_check(at_images: float, in_attack: float) -> Check:
    """Judge the percent of gradients that are exactly zero or not finite."""
    largest = max(at_images, in_attack)
    return Check(
        "zero_gradients",
        "Gradients are there to follow",
        largest > ZERO_PERCENT,
        f"{at_images:.1f}% zero or not finite at the images, {in_attack:.1f}% in PGD-10",
        f"at most {ZERO_PERCENT:g}%",
        [["at the\nimages", at_images], ["in PGD-10", in_attack]],
    )


def margin_check(margin: Tensor, cross_entropy: Tensor) -> Check:
    """Judge what PGD-50 on the margin and on cross-entropy leave right, each (n,) bool."""
    return Check(
        "margin",
        "The loss attacked makes little difference",
        is_lower(margin, cross_entropy, LOSS_POINTS),
        f"PGD-{MANY_STEPS} on cross-entropy {_percent(cross_entropy):.1f}%, on the margin "
        f"{_percent(margin):.1f}%",
        f"the margin no more than {LOSS_POINTS:g} points and chance lower",
        [["cross-\nentropy", _percent(cross_entropy)], ["margin", _percent(margin)]],
    )


def row_checks(rows: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Return the checks that compare the rows of a report, all of one norm."""
    return [gap_check(rows), square_check(rows)]


def gap_check(rows: Sequence[Mapping[str, Any]]) -> Check:
    """Compare PGD-10 with AutoAttack in the rows of a report; without them nothing is flagged.

    Args:
        rows: with "attack", "norm", "eps_text", "space", "correct", "n" and the 95% interval
            "low", "high" in percent. Where the two were run on different numbers of images, a gap
            counts only if their intervals do not meet.
    """
    points, flagged = [], False
    for budget, found in _by_budget(rows).items():
        if {"pgd10", "autoattack"} <= found.keys():
            weak, strong = found["pgd10"], found["autoattack"]
            gap = 100 * (weak["correct"] / weak["n"] - strong["correct"] / strong["n"])
            points.append([budget, gap])
            apart = weak["n"] == strong["n"] or strong["high"] < weak["low"]
            flagged = flagged or (gap > GAP_POINTS and apart)
    if points:
        label, gap = max(points, key=lambda point: point[1])
        value = f"at most {gap:.1f} points, at {' '.join(label.split())}"
    else:
        value = "not run: no budget has both PGD-10 and AutoAttack"
    title = "AutoAttack takes little more than PGD-10"
    return Check("gap", title, flagged, value, f"at most {GAP_POINTS:g} points", points)


def square_check(rows: Sequence[Mapping[str, Any]]) -> Check:
    """Compare Square with the attacks along gradients in the rows of a report, on the same images.

    Twice, where the rows are there: Square alone against the best of the others alone, and what
    it still takes in AutoAttack from what the others have left there.

    Args:
        rows: as for `gap_check`, with "after" of AutoAttack, a list of [attack, images left].
    """
    points, flagged = [], False
    for budget, found in _by_budget(rows).items():
        stages = dict(found.get("autoattack", {}).get("after", []))
        before = [left for name, left in stages.items() if name != "square"]
        others = [found[name]["correct"] for name in GRADIENT_ATTACKS if name in found] + before
        if "square" in found and others:
            alone = found["square"]
            beyond = 100 * (min(others) - alone["correct"]) / alone["n"]
            points.append([f"{budget}\nalone", beyond])
            flagged = flagged or beyond > ORDER_POINTS
        if before and "square" in stages:
            taken = min(before) - stages["square"]
            beyond = 100 * taken / found["autoattack"]["n"]
            points.append([f"{budget}\nAutoAttack", beyond])
            flagged = flagged or (taken > SQUARE_IMAGES and beyond > SQUARE_POINTS)
    if points:
        label, beyond = max(points, key=lambda point: point[1])
        value = f"at most {beyond:+.1f} points, at {' '.join(label.split())}"
    else:
        value = "not run: no budget has both Square and an attack along gradients"
    return Check(
        "square",
        "Square takes nothing that gradients left",
        flagged,
        value,
        f"alone at most {ORDER_POINTS:g} points better, in AutoAttack at most {SQUARE_POINTS:g} "
        f"points or {SQUARE_IMAGES} image",
        points,
    )


def _by_budget(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Rows by attack, by a label of their budget."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        budget = f"{row['norm']} {row['eps_text']}\n{row['space']}"
        found.setdefault(budget, {})[row["attack"]] = row
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


def _order_check(
    name: str, title: str, weaker: tuple[str, Tensor], stronger: tuple[str, Tensor]
) -> Check:
    """Judge whether what must be the weaker attack is the stronger one."""
    return Check(
        name,
        title,
        is_lower(weaker[1], stronger[1], ORDER_POINTS),
        "; ".join(f"{label}: {_percent(right):.1f}%" for label, right in (weaker, stronger)),
        f"the first no more than {ORDER_POINTS:g} points and chance lower",
        [[label.replace(", ", "\n"), _percent(right)] for label, right in (weaker, stronger)],
    )


def _percent(right: Tensor) -> float:
    return 100 * float(right.double().mean())
