"""All that a run must remember to go on where it was stopped."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from core_tuning.objectives import LossTerms

from .learner import Learner
from .randomness import random_states, restore_random_states


class TrainingState:
    """Learner, optimiser, position and running sums.

    Running sums and the watch for losses that are not finite stay on the device, so that no step
    waits for them.

    Attributes:
        step: optimiser steps taken.
        epoch: epochs finished, their evaluation included.
        best_top1: best validation accuracy so far, in percent.
        best_epoch: the epoch, counted from 1, of the exported model.
        seconds: spent by earlier processes.
    """

    def __init__(self, learner: Learner, optimizer: Any, accelerator: Accelerator) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.scaler = accelerator.scaler
        self.step = 0
        self.epoch = 0
        self.best_top1 = -math.inf
        self.best_epoch = 0
        self.seconds = 0.0
        self._sums = torch.zeros(5, dtype=torch.float64, device=accelerator.device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=accelerator.device)

    @torch.no_grad()
    def count(self, terms: LossTerms, labels: Tensor) -> None:
        """Add a micro-batch: loss terms, and accuracy from the logits that they carry."""
        correct = (terms.logits.argmax(dim=1) == labels).sum()
        losses = torch.stack([terms.total, terms.cross_entropy, terms.contrastive]).detach()
        self._sums[:3] += losses.double() * len(labels)
        self._sums[3] += correct
        self._sums[4] += len(labels)
        is_first = (self._bad_step < 0) & ~torch.isfinite(terms.total)
        self._bad_step = torch.where(is_first, self.step + 1, self._bad_step)

    def averages(self) -> dict[str, float]:
        """Mean loss terms, and accuracy in percent, since the epoch began."""
        total, cross_entropy, contrastive, correct, images = self._sums.tolist()
        images = max(images, 1)
        return {
            "loss": total / images,
            "cross_entropy": cross_entropy / images,
            "contrastive": contrastive / images,
            "top1": 100 * correct / images,
        }

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
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "sums": self._sums,
            "best_top1": self.best_top1,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "random_states": random_states(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what `state_dict` returned."""
        self.learner.image_encoder.load_state_dict(state["image_encoder"])
        self.learner.classifier.load_state_dict(state["classifier"])
        self.learner.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.epoch = state["epoch"]
        self._sums.copy_(state["sums"])
        self.best_top1 = state["best_top1"]
        self.best_epoch = state["best_epoch"]
        self.seconds = state["seconds"]
        restore_random_states(state["random_states"])
