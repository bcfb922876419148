"""Puts adversarial images beside, or in place of, each batch's clean ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core_tuning.training.learner import Learner
from core_tuning.training.loop import ChangedBatch

from .attack.pgd import perturb
from .attack.view import AttackView
from .budgets import Budget


@dataclass(frozen=True)
class Plan:
    """How a learner is attacked while it trains.

    Attributes:
        budget: of the attack once eps is warm.
        adv_weight: share in [0, 1] of the adversarial half in the objective; one half makes it
            the plain objective of the joined batch.
        adversarial_only: train on the adversarial images alone (Madry et al., 2018).
        epochs_at_zero: epochs without an attack before eps rises.
        epochs_of_ramp: epochs in which eps rises linearly to the budget's.
        precision: "fp32", "bf16" or "fp16", of the attack's passes.
        channels_last: memory format of the attack's passes.
        compile: pass the attacked copy through torch.compile.
    """

    budget: Budget
    adv_weight: float = 0.5
    adversarial_only: bool = False
    epochs_at_zero: float = 0.0
    epochs_of_ramp: float = 0.0
    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False

    def budget_at(self, epoch: float) -> Budget:
        """Return the budget after so many epochs: eps and step size rise together."""
        done = 1.0
        if epoch < self.epochs_at_zero + self.epochs_of_ramp:
            over = max(0.0, epoch - self.epochs_at_zero)
            done = over / self.epochs_of_ramp if self.epochs_of_ramp else 0.0
        return self.budget._replace(
            eps=done * self.budget.eps, step_size=done * self.budget.step_size
        )


class Adversary:
    """Attacks each batch with the learner's current weights; a `BatchChange`.

    As long as eps is 0 the batch stays as it is, and its accuracy counts as robust too.

    Args:
        learner: what is trained and attacked.
        plan: how.
    """

    def __init__(self, learner: Learner, plan: Plan) -> None:
        self.learner = learner
        self.plan = plan
        self.figures: tuple[str, ...] = ("robust_top1", "zero_gradients", "eps")
        if not plan.adversarial_only:
            self.figures = ("clean_top1", *self.figures)
        self._view: AttackView | None = None
        self._budget = plan.budget

    @property
    def view(self) -> AttackView:
        """The copy that is attacked; made when it is first needed, on the learner's device."""
        if self._view is None:
            self._view = AttackView(
                self.learner,
                precision=self.plan.precision,
                channels_last=self.plan.channels_last,
                compile=self.plan.compile,
            )
        return self._view

    def change(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: float
    ) -> ChangedBatch:
        """Join images (n, 3, h, w) and adversarial ones into (2n, 3, h, w), the clean ones first.

        With `adversarial_only` the adversarial ones alone are returned.
        """
        self._budget = self.plan.budget_at(epoch)
        self.view.begin_count()
        if self._budget.eps == 0:
            return ChangedBatch(images, labels)
        self.view.refresh()
        # Its initial seed, because a number drawn on a GPU would have to be waited for.
        seed = generator.initial_seed()
        adversarial = perturb(self.view, images, labels, self._budget, seed=seed)
        if self.plan.adversarial_only:
            return ChangedBatch(adversarial, labels)
        return ChangedBatch(
            torch.cat([images, adversarial]), labels.repeat(2), self._weights(images)
        )

    def _weights(self, images: Tensor) -> Tensor | None:
        share = self.plan.adv_weight
        if share == 0.5:
            return None
        n = len(images)
        # Filled on the device, where a list would have to be copied to.
        return torch.cat([images.new_full((n,), 1 - share), images.new_full((n,), share)])

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return `figures`: accuracies in percent, share of zero gradients in [0, 1], and eps."""
        right = 100 * (logits.argmax(dim=1) == labels).float()
        joined = self._budget.eps > 0 and not self.plan.adversarial_only
        robust = right[len(right) // 2 :] if joined else right
        figures = [robust.mean(), self.view.zero_gradient_share()]
        figures.append(right.new_full((), self._budget.eps))
        if not self.plan.adversarial_only:
            figures.insert(0, right[: len(right) // 2].mean() if joined else right.mean())
        return torch.stack(figures)
