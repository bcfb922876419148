"""Adversarial training: what it makes of each batch, and how its models are measured."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core_tuning.data.loading import load_batches
from core_tuning.training.evaluate import Evaluation, Tally
from core_tuning.training.learner import Learner
from core_tuning.training.loop import ChangedBatch
from core_tuning.training.seeds import derive_seed

from .attack.pgd import perturb
from .attack.view import AttackView
from .budgets import Budget
from .config import RobustTrain


class Adversary:
    """Attacks each batch with the learner's current weights; a `BatchChange`.

    As long as eps is 0 the batch stays as it is, and its accuracy counts as robust too.

    Args:
        learner: what is trained and attacked.
        options: the budget, its warm-up, the weight of the adversarial half (one half makes it the
            plain objective of the joined batch), and how the attack's passes are computed.
    """

    def __init__(self, learner: Learner, options: RobustTrain) -> None:
        self.learner = learner
        self.options = options
        self.figures: tuple[str, ...] = ("robust_top1", "zero_gradients", "eps")
        if not options.adversarial_only:
            self.figures = ("clean_top1", *self.figures)
        self._full = self._budget = options.budget()

    @cached_property
    def view(self) -> AttackView:
        """The copy that is attacked; made when it is first needed, on the learner's device."""
        options = self.options
        return AttackView(
            self.learner,
            precision=options.attack_precision or options.precision,
            channels_last=options.channels_last,
            compile=options.compile,
        )

    def budget_at(self, epoch: float) -> Budget:
        """Return the budget after so many epochs: eps and step size rise together."""
        at_zero, ramp = self.options.eps_warmup
        done = 1.0
        if epoch < at_zero + ramp:
            done = max(0.0, epoch - at_zero) / ramp if ramp else 0.0
        full = self._full
        return full._replace(eps=done * full.eps, step_size=done * full.step_size)

    def change(
        self, images: Tensor, labels: Tensor, generator: torch.Generator, epoch: float
    ) -> ChangedBatch:
        """Join images (n, 3, h, w) and adversarial ones into (2n, 3, h, w), the clean ones first.

        With `adversarial_only` the adversarial ones alone are returned.
        """
        self._budget = self.budget_at(epoch)
        self.view.begin_count()
        if self._budget.eps == 0:
            return ChangedBatch(images, labels)
        self.view.refresh()
        # Its initial seed, because a number drawn on a GPU would have to be waited for.
        seed = generator.initial_seed()
        adversarial = perturb(self.view, images, labels, self._budget, seed=seed)
        if self.options.adversarial_only:
            return ChangedBatch(adversarial, labels)
        weights, share = None, self.options.adv_weight
        if share != 0.5:
            # Filled on the device, where a list would have to be copied to.
            halves = [images.new_full((len(images),), each) for each in (1 - share, share)]
            weights = torch.cat(halves)
        return ChangedBatch(torch.cat([images, adversarial]), labels.repeat(2), weights)

    def measure(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return `figures`: accuracies in percent, share of zero gradients in [0, 1], and eps."""
        right = 100 * (logits.argmax(dim=1) == labels).float()
        clean = robust = right
        if self._budget.eps > 0 and not self.options.adversarial_only:
            clean, robust = right.chunk(2)
        eps = right.new_full((), self._budget.eps)
        figures = [clean.mean(), robust.mean(), self.view.zero_gradient_share(), eps]
        return torch.stack(figures[-len(self.figures) :])


class RobustEvaluation(NamedTuple):
    """Counts of a data set's predictions with and without an attack.

    Attributes:
        clean: without.
        robust: images that are classified right both ways.
        zero_gradients: share in [0, 1] of attack steps whose gradient was exactly zero.
    """

    clean: Evaluation
    robust: int
    zero_gradients: float

    @property
    def plain(self) -> Evaluation:
        """What there is without an attack."""
        return self.clean

    @property
    def robust_top1(self) -> float:
        """Share of images that stay classified right under attack, in percent."""
        return 100 * self.robust / self.clean.images

    @property
    def score(self) -> float:
        """What selects a model: robust accuracy in percent."""
        return self.robust_top1

    def summary(self) -> dict[str, Any]:
        """The figures of a metrics line."""
        return {
            **self.clean.summary(),
            "robust_top1": self.robust_top1,
            "zero_gradients": self.zero_gradients,
        }


@torch.no_grad()
def evaluate_robust(
    model: nn.Module, loader: DataLoader, num_classes: int, *, budget: Budget, seed: int
) -> RobustEvaluation:
    """Classify every image clean and under attack, in float32.

    The model's mode is restored afterwards.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K).
        loader: of (images, labels (n,)).
        num_classes: K.
        budget: of the attack.
        seed: of the attack's random starts, with the number of the batch.
    """
    was_training = model.training
    model.eval()
    view = AttackView(model)
    device = next(model.parameters()).device
    tally = Tally(num_classes, device)
    robust = torch.zeros((), dtype=torch.int64, device=device)
    for number, (images, labels) in enumerate(load_batches(loader)):
        images = images.to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        predicted = tally.add(model(images), labels)
        attacked = perturb(view, images, labels, budget, seed=derive_seed(seed, number))
        robust += ((predicted == labels) & (model(attacked).argmax(dim=1) == labels)).sum()
    model.train(was_training)
    return RobustEvaluation(tally.evaluation(), int(robust), float(view.zero_gradient_share()))
