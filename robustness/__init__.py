"""Adversarial fine-tuning, and an evaluation of robustness that does not mislead.

Nothing heavy is imported before a name is used, so that the command line answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_tuning.lazy import lazy_names

if TYPE_CHECKING:
    from .attacks import perturb
    from .budgets import Budget, make_budget
    from .view import AttackView

__getattr__ = lazy_names(
    __name__,
    {
        "AttackView": "view",
        "Budget": "budgets",
        "make_budget": "budgets",
        "perturb": "attacks",
    },
)
__all__ = ["AttackView", "Budget", "make_budget", "perturb"]
