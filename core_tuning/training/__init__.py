"""The one training loop, shared by every entry point."""

from .evaluation import Evaluation, evaluate
from .folder import RunFolder
from .learner import Learner
from .loop import fit
from .settings import Settings

__all__ = ["Evaluation", "Learner", "RunFolder", "Settings", "evaluate", "fit"]
