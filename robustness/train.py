"""`core-tuning robust train`: adversarial fine-tuning (Section 5.3, Tables 9 and 14)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from core_tuning.config import check_places
from core_tuning.errors import UserError

from .budgets import beyond_usual, check_reach, describe_eps
from .config import RobustTrain

if TYPE_CHECKING:
    from core_tuning.training.classify import Kind

FIGURES = {"top1": "clean top-1", "robust_top1": "robust top-1"}


def main(options: RobustTrain) -> None:
    """Run the command; torch is imported after the options are checked."""
    check_places(options.data_dir, options.pretrained, download=options.download)
    from core_tuning.training.classify import run_classification

    from .attack.pgd import check_torchattacks

    check_torchattacks()
    kind = adversarial(options)
    budget, eps = options.budget(), kind.facts["adversarial"]["eps_text"]
    print(
        f"attack: {budget.norm} norm, eps {eps} on images in [0, 1]; {budget.steps} steps of PGD "
        f"of size {budget.step_size:.3g} from a random start"
    )
    run_classification(options, kind)


def adversarial(options: RobustTrain) -> Kind:
    """What tells adversarial from plain fine-tuning."""
    from core_tuning.training.build import image_size
    from core_tuning.training.classify import Kind

    from .adversary import Adversary, evaluate_robust

    budget, side = options.budget(), image_size(options)
    check_reach(budget.norm, budget.eps, 3 * side**2)
    large = beyond_usual(budget.norm, budget.eps, (side, side))
    if large and not options.allow_large_eps:
        raise UserError(
            f"{large}: expected images in [0, 1], not grey levels, and a change that leaves the "
            "image its class; lower --eps, or give --allow-large-eps if it is meant."
        )
    facts = {**budget._asdict(), "eps_text": describe_eps(budget.norm, budget.eps)}
    return Kind(
        "robust train",
        FIGURES,
        title="AT-{}",
        selection="robust top-1",
        evaluate=partial(evaluate_robust, budget=budget, seed=0),
        change=lambda learner: Adversary(learner, options),
        facts={"adversarial": facts},
        advice="PGD alone flatters: measure with 'core-tuning robust evaluate {}'.",
    )
