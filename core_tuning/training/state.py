"""All that a run must remember to go on where it was stopped."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from core_tuning.objectives import LossTerms

from .ema import MovingAverage
from .learner import Learner
from .randomness import random_states, restore_random_states


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
        epoch: epochs finished, their evaluation included.
        best_score: best validation score so far, in percent.
        best_epoch: the epoch, counted from 1, of the exported model.
        seconds: spent by earlier processes.
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
        self.scaler = accelerator.scaler
        self.step = 0
        self.epoch = 0
        self.best_score = -math.inf
        self.best_epoch = 0
        self.seconds = 0.0
        self._average = MovingAverage(learner, ema) if ema else None
        self._names = ("loss", "cross_entropy", "contrastive", "top1", *figures)
        # The last one counts images.
        self._sums = torch.zeros(
            len(self._names) + 1, dtype=torch.float64, device=accelerator.device
        )
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=accelerator.device)

    @property
    def evaluated(self) -> Learner:
        """What is validated and exported: the average if one is kept, or else the learner."""
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
        """Mean loss terms, accuracy in percent, and figures, since the epoch began."""
        *sums, images = self._sums.tolist()
        return {name: total / max(images, 1) for name, total in zip(self._names, sums, strict=True)}

    def begin_epoch(self) -> None:
        """Set the running sums to 0."""
        self._sums.zero_()

    def first_bad_step(self) -> int | None:
        """Return the first step whose loss was not finite."""
        step = int(self._bad_step)
        return None if step < 0 else step

    def has_finite_weights(self) -> bool:
        """Whether every parameter is finite; reads one value back from the device."""
        finite = [torch.isfinite(parameter).all() for parameter in self.learner.parameters()]
        return bool(torch.stack(finite).all())

    def state_dict(self) -> dict[str, Any]:
        """Everything, as tensors and plain values."""
        return {
            "image_encoder": self.learner.image_encoder.state_dict(),
            "classifier": self.learner.classifier.state_dict(),
            "objective": self.learner.objective.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "sums": self._sums,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "random_states": random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.learner.image_encoder.load_state_dict(state["image_encoder"])
        self.learner.classifier.load_state_dict(state["classifier"])
        self.learner.objective.load_state_dict(state["objective"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.epoch = state["epoch"]
        self._sums.copy_(state["sums"])
        self.best_score = state["best_score"]
        self.best_epoch = state["best_epoch"]
        self.seconds = state["seconds"]
        restore_random_states(state["random_states"])
