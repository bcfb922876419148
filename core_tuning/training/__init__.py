"""The one training loop, and what every fine-tuning command shares.

Nothing heavy is imported before a name is used, so that a command's --help answers at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_tuning.lazy import lazy_names

if TYPE_CHECKING:
    from .evaluate import Evaluation, evaluate
    from .folder import RunFolder
    from .learner import Learner
    from .loop import fit

__getattr__ = lazy_names(
    __name__,
    {
        "Evaluation": "evaluate",
        "Learner": "learner",
        "RunFolder": "folder",
        "evaluate": "evaluate",
        "fit": "loop",
    },
)
__all__ = ["Evaluation", "Learner", "RunFolder", "evaluate", "fit"]
