"""The exponential moving average of the weights."""

from __future__ import annotations

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core_tuning.errors import UserError

from .learner import Learner


def make_average(learner: Learner, decay: float) -> AveragedModel | None:
    """Make a copy of a learner that follows its weights, or None for a decay of 0.

    After each step the copy's parameters are decay times themselves plus (1 - decay) times the
    learner's; its buffers, running statistics of batch norm among them, are the learner's.

    Raises:
        UserError: the decay is outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise UserError(f"The decay of the weights' average is {decay}: expected in [0, 1).")
    if decay == 0:
        return None
    return AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(decay))
