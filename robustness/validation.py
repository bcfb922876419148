"""Clean accuracy and accuracy under the training attack, for selection and for the test set."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.data import DataLoader

from core_tuning.data.loading import load_batches
from core_tuning.training.evaluate import Evaluation, Tally
from core_tuning.training.seeds import derive_seed

from .attack.pgd import perturb
from .attack.view import AttackView
from .budgets import Budget


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
