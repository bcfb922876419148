"""The one training loop, and what every fine-tuning command shares.

Nothing heavy is imported before a name is used, so that a command's --help answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation import Evaluation, evaluate
    from .folder import RunFolder
    from .learner import Learner
    from .loop import fit
    from .settings import Settings

_MODULES = {
    "Evaluation": "evaluation",
    "Learner": "learner",
    "RunFolder": "folder",
    "Settings": "settings",
    "evaluate": "evaluation",
    "fit": "loop",
}
__all__ = ["Evaluation", "Learner", "RunFolder", "Settings", "evaluate", "fit"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
