"""All that a run must remember to go on where it was stopped."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from core_tuning.objectives import LossTerms

from .averaging import MovingAverage
from .learner import Learner

_PARTS = ("image_encoder", "classifier", "objective")
_NUMBERS = (
    "step", "recorded", "evaluations", "best_score", "best_step", "seconds", "step_seconds",
)  # fmt: skip


class TrainingState:
    """Learner and its average, optimiser, position and running sums.

    Running sums and the watch for losses that are not finite stay on the device, so that no step
    waits for them.

    Args:
        learner: what is trained.
        optimizer: of its parameters.
        accelerator: names the device, and has the scaler of float16.
        ema: decay of the moving average of the learner (`MovingAverage`); 0 keeps none.
        figures: names of what is summed up beside the loss terms and the accuracy.

    Attributes:
        step: optimiser steps taken.
        recorded: the step of the last evaluation whose results are kept.
        evaluations: how many there are.
        best_score: best validation score so far, in percent.
        best_step: optimiser steps of the model that is kept as the best.
        seconds: spent by this process and earlier ones.
        step_seconds: spent by the steps since the last evaluation, loading their batches included.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: Any,
        accelerator: Accelerator,
        *,
        ema: float = 0.0,
        figures: tuple[str, ...] = (),
    ) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.step = self.recorded = self.evaluations = self.best_step = 0
        self.best_score = -math.inf
        self.seconds = self.step_seconds = 0.0
        self._scaler = accelerator.scaler
        self._average = MovingAverage(learner, ema) if ema else None
        self._names = ("loss", "cross_entropy", "contrastive", "top1", *figures)
        device = accelerator.device
        # The last one counts images.
        self._sums = torch.zeros(len(self._names) + 1, dtype=torch.float64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)

    @property
    def evaluated(self) -> Learner:
        """What is validated and kept: the average if there is one, or else the learner."""
        return self.learner if self._average is None else self._average.learner

    def update_average(self) -> None:
        """Move the average towards the learner after a step."""
        if self._average is not None:
            self._average.update(self.learner)

    @torch.no_grad()
    def count(self, terms: LossTerms, labels: Tensor, figures: Tensor | None = None) -> None:
        """Add a micro-batch: loss terms, accuracy from the logits that they carry, and figures."""
        correct = (terms.logits.argmax(dim=1) == labels).sum()
        losses = torch.stack([terms.total, terms.cross_entropy, terms.contrastive]).detach()
        self._sums[:3] += losses.double() * len(labels)
        self._sums[3] += 100 * correct
        if figures is not None:
            self._sums[4:-1] += figures.double() * len(labels)
        self._sums[-1] += len(labels)
        is_first = (self._bad_step < 0) & ~torch.isfinite(terms.total)
        self._bad_step = torch.where(is_first, self.step + 1, self._bad_step)

    def averages(self) -> dict[str, float]:
        """Mean loss terms, accuracy in percent, and figures, since the last evaluation."""
        *sums, images = self._sums.tolist()
        return {name: total / max(images, 1) for name, total in zip(self._names, sums, strict=True)}

    def count_anew(self) -> None:
        """Set the running sums to 0, after an evaluation whose results are kept."""
        self.recorded = self.step
        self.evaluations += 1
        self.step_seconds = 0.0
        self._sums.zero_()

    def what_is_not_finite(self, *, weights: bool = False) -> str:
        """Say of a loss, or of the weights too, that it is not finite; "" if all is good.

        Args:
            weights: look at them too: a finite loss may have a gradient that is not.
        """
        bad_step = int(self._bad_step)
        if bad_step >= 0:
            return f"The loss is not finite at step {bad_step}"
        if weights:
            finite = [torch.isfinite(parameter).all() for parameter in self.learner.parameters()]
            if not bool(torch.stack(finite).all()):
                return f"The weights are not finite after step {self.step}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            **{part: getattr(self.learner, part).state_dict() for part in _PARTS},
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self._scaler is None else self._scaler.state_dict(),
            "sums": self._sums,
            **{name: getattr(self, name) for name in _NUMBERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        for part in _PARTS:
            getattr(self.learner, part).load_state_dict(state[part])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])
        self._sums.copy_(state["sums"])
        for name in _NUMBERS:
            setattr(self, name, state[name])
