"""The exponential moving average of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.precision import at_least_float32

from .learner import Learner


class MovingAverage:
    """A copy of a learner that follows it, batch-norm statistics included.

    The copy starts as the learner is. Update t (t = 1, 2, ..., one after each optimiser step)
    makes every floating tensor of it, parameter or buffer, d times itself plus 1 - d times the
    learner's, with d = min(decay, (1 + t) / (10 + t)), so that the first steps do not hold on to
    the initial weights. Statistics are averaged because those of the learner's last weights are
    not those of averaged weights. Whole numbers, such as the batches that a batch norm has
    counted, are copied. Whatever is equal in both stays as it is, bit for bit: normalisation,
    masks (infinite ones too), and what is frozen.

    The copy is float32 where the learner has half precision, in which small steps round to none.

    Args:
        learner: the one to follow, on its device already; `update` takes the same.
        decay: d once the average is warm, in (0, 1).

    Attributes:
        learner: the average.
        updates: t, how often it was updated.

    Raises:
        UserError: the decay is not in (0, 1).
    """

    def __init__(self, learner: Learner, decay: float) -> None:
        if not 0 < decay < 1:
            raise UserError(f"The decay of the weights' average is {decay}: expected in (0, 1).")
        self.decay = decay
        self.updates = 0
        self.learner = deepcopy(learner)._apply(at_least_float32)

    @torch.no_grad()
    def update(self, learner: Learner) -> None:
        """Move towards the learner after a step."""
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        trained: tuple[list[Tensor], list[Tensor]] = ([], [])
        for mine, theirs in zip(_tensors(self.learner), _tensors(learner), strict=True):
            if not (mine.is_floating_point() or mine.is_complex()):
                mine.copy_(theirs)
            elif theirs.requires_grad:
                trained[0].append(mine)
                trained[1].append(theirs.to(mine.dtype))
            else:
                now = theirs.to(mine.dtype)
                # Interpolating between equal infinities would make a NaN of them.
                mine.copy_(torch.where(mine == now, mine, mine.lerp(now, share)))
        torch._foreach_lerp_(*trained, share)

    def state_dict(self) -> dict[str, Any]:
        """The average and its count."""
        return {"learner": self.learner.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.learner.load_state_dict(state["learner"])
        self.updates = state["updates"]


def _tensors(module: nn.Module) -> chain[Tensor]:
    """Every parameter and buffer, a shared one once."""
    return chain(module.parameters(), module.buffers())
