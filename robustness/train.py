"""`core-tuning robust train`: adversarial fine-tuning (Section 5.3, Tables 9 and 14)."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core_tuning.errors import UserError

from .budgets import beyond_usual, check_reach, describe_eps
from .train_options import budget_of, parse

if TYPE_CHECKING:
    from core_tuning.training.run import Kind

FIGURES = {"top1": "clean top-1", "robust_top1": "robust top-1"}


def main(argv: list[str]) -> int:
    """Run the command; torch is imported after the options are checked."""
    options = parse(argv)
    from core_tuning.training.build import image_size
    from core_tuning.training.run import run_seeds

    from .attack.pgd import check_torchattacks

    check_torchattacks()
    kind = adversarial(options)
    print(_announce(options, image_size(options)))
    run_seeds(options, kind, _describe, FIGURES)
    return 0


def adversarial(options: argparse.Namespace) -> Kind:
    """What tells adversarial from plain fine-tuning."""
    from core_tuning.training.build import image_size
    from core_tuning.training.run import Kind

    from .adversary import Adversary, Plan
    from .validation import evaluate_robust

    zero, ramp = options.eps_warmup
    budget, side = budget_of(options), image_size(options)
    check_reach(budget.norm, budget.eps, 3 * side**2)
    large = beyond_usual(budget.norm, budget.eps, (side, side))
    if large and not options.allow_large_eps:
        raise UserError(
            f"{large}: expected images in [0, 1], not grey levels, and a change that leaves the "
            "image its class; lower --eps, or give --allow-large-eps if it is meant."
        )
    plan = Plan(
        budget,
        adv_weight=options.adv_weight,
        adversarial_only=options.adversarial_only,
        epochs_at_zero=zero,
        epochs_of_ramp=ramp,
        precision=options.attack_precision,
        channels_last=options.channels_last,
        compile=options.compile,
    )
    facts = {**budget._asdict(), "eps_text": describe_eps(budget.norm, budget.eps)}
    return Kind(
        evaluate=partial(evaluate_robust, budget=budget, seed=0),
        selection="robust top-1",
        change=lambda learner: Adversary(learner, plan),
        facts={"adversarial": facts},
    )


def _announce(options: argparse.Namespace, side: int) -> str:
    budget = budget_of(options)
    return (
        f"attack: {budget.norm} norm, eps {describe_eps(budget.norm, budget.eps)} on images of "
        f"{side}x{side} pixels in [0, 1]; {budget.steps} steps of PGD of size "
        f"{budget.step_size:.3g} from a random start"
    )


def _describe(result: dict[str, Any], folder: Path) -> str:
    test, attack = result["test"], result["adversarial"]
    return (
        f"test of {result['dataset']} ({test['images']} images, {result['split']}): clean top-1 "
        f"{test['top1']:.2f}%, under PGD-{attack['steps']} ({attack['norm']}, eps "
        f"{attack['eps_text']}) {test['robust_top1']:.2f}% (model of epoch "
        f"{result['selected_epoch']}, {result['selection']}); see {folder}\n"
        f"PGD alone flatters: measure with 'core-tuning robust evaluate {folder}'."
    )
