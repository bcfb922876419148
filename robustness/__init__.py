"""Adversarial fine-tuning, and an evaluation of robustness that does not mislead.

Nothing heavy is imported before a name is used, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_tuning.lazy import lazy_names

if TYPE_CHECKING:
    from .attack.pgd import perturb
    from .attack.view import AttackView
    from .budgets import Budget, make_budget

__getattr__ = lazy_names(
    __name__,
    {
        "AttackView": "attack.view",
        "Budget": "budgets",
        "make_budget": "budgets",
        "perturb": "attack.pgd",
    },
)
__all__ = ["AttackView", "Budget", "make_budget", "perturb"]
