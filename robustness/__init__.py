"""Adversarial fine-tuning, and an evaluation of robustness that does not mislead.

Nothing heavy is imported before a name is used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attacks import perturb
    from .budgets import Budget, make_budget
    from .view import AttackView

_MODULES = {
    "AttackView": "view",
    "Budget": "budgets",
    "make_budget": "budgets",
    "perturb": "attacks",
}
__all__ = ["AttackView", "Budget", "make_budget", "perturb"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
