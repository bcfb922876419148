"""Adversarial training: what it makes of each batch, and how its models are measured."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from core_tuning.data.loading import load_batches
from core_tuning.errors import UserError
from core_tuning.training.build import image_size
from core_tuning.training.classify import Kind
from core_tuning.training.evaluate import Evaluation, Tally
from core_tuning.training.learner import Learner
from core_tuning.training.loop import ChangedBatch
from core_tuning.training.seeds import derive_seed

from .attack.pgd import perturb
from .attack.view import AttackView
from .budgets import Budget, beyond_usual, check_reach, describe_eps
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
        clean = () if options.adversarial_only else ("clean_top1",)
        self.figures: tuple[str, ...] = (*clean, "robust_top1", "zero_gradients", "eps")
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
        full, done = self._full, 1.0
        if epoch < at_zero + ramp:
            done = max(0.0, epoch - at_zero) / ramp if ramp else 0.0
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
        plain: without.
        robust: images that are classified right both ways.
        zero_gradients: share in [0, 1] of attack steps whose gradient was exactly zero.
    """

    plain: Evaluation
    robust: int
    zero_gradients: float

    @property
    def score(self) -> float:
        """Share of images that stay right under attack, in percent; it selects a model."""
        return 100 * self.robust / self.plain.images

    def summary(self) -> dict[str, Any]:
        """The figures of a metrics line."""
        attacked = {"robust_top1": self.score, "zero_gradients": self.zero_gradients}
        return {**self.plain.summary(), **attacked}


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


def adversarial(options: RobustTrain) -> Kind:
    """What tells adversarial from plain fine-tuning.

    Raises:
        UserError: eps is beyond what is usual, or what images can use, at the images' size.
    """
    budget, side = options.budget(), image_size(options)
    check_reach(budget.norm, budget.eps, 3 * side**2)
    large = beyond_usual(budget.norm, budget.eps, (side, side))
    if large and not options.allow_large_eps:
        raise UserError(
            f"{large}: expected images in [0, 1], not grey levels, and a change that leaves the "
            "image its class; lower --eps, or give --allow-large-eps if it is meant."
        )
    facts = {**budget._asdict(), "eps_text": describe_eps(budget.norm, budget.eps)}
    return Kind(
        "robust train",
        {"top1": "clean top-1", "robust_top1": "robust top-1"},
        title="AT-{}",
        selection="robust top-1",
        evaluate=partial(evaluate_robust, budget=budget, seed=0),
        change=lambda learner: Adversary(learner, options),
        facts={"adversarial": facts},
        advice="PGD alone flatters: measure with 'core-tuning robust evaluate {}'.",
    )
