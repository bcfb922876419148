"""The classifier's part of the objectives: logits, soft targets, cross-entropy, manifold mixup."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .arguments import CLASSIFIED, check_classes, check_tensors
from .errors import UserError
from .losses import hard_cross_entropy, mixed_cross_entropy
from .mining import sample_lambda
from .precision import at_least_float32, call_in_own_dtype

Classifier = Callable[[Tensor], Tensor]


def classify(classifier: Classifier, features: Tensor, num_classes: int | None = None) -> Tensor:
    """Logits (m, K), float32 or float64, of features (m, d) of any floating dtype.

    Raises:
        UserError: a linear classifier is of another width than the features, or the logits are
            not one row for each of the features, of `num_classes` columns if that is given.
    """
    if isinstance(classifier, nn.Linear) and classifier.in_features != features.shape[1]:
        raise UserError(
            f"The features have width {features.shape[1]} and the classifier takes "
            f"{classifier.in_features}: make it with torch.nn.Linear({features.shape[1]}, K)."
        )
    logits = call_in_own_dtype(classifier, features)
    sizes = {"n": len(features)}
    if num_classes is not None:
        sizes["K"] = num_classes
    check_tensors(logits=(logits, CLASSIFIED), sizes=sizes)
    return at_least_float32(logits)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """One-hot targets (n, K); F.one_hot would read the largest label back from the device.

    Raises:
        UserError: on the CPU, a label is none of 0 to K - 1.
    """
    check_classes(labels, num_classes)
    targets = torch.zeros(len(labels), num_classes, dtype=dtype, device=labels.device)
    return targets.scatter_(1, labels[:, None].long(), 1.0)


def cross_entropy(
    features: Tensor,
    labels: Tensor,
    classifier: Classifier,
    *,
    manifold: bool = False,
    num_classes: int | None = None,
    alpha: float = 1.0,
    generator: torch.Generator | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of features (n, d), and their logits (n, K).

    `manifold` adds the mean cross-entropy of n mixtures with random partners, their factors from
    Beta(alpha, alpha): L_ce^m with manifold mixup (row 3 of Table 2, row 2 of Table 24). Each
    mean is weighted by `weights` (n,), if given; mixture lam z_i + (1 - lam) z_partner(i) carries
    the weight of sample i.

    Raises:
        UserError: the classifier or `weights` do not fit, K is missing for manifold mixup, or on
            the CPU a label is none of 0 to K - 1.
    """
    if not manifold:
        logits = classify(classifier, features, num_classes)
        return hard_cross_entropy(logits, labels, weights), logits
    if num_classes is None:
        raise UserError("mixing is 'manifold' without num_classes: give the number of classes.")
    n = len(labels)
    z = at_least_float32(features)
    targets = one_hot(labels, num_classes, z.dtype)
    partners = torch.randperm(n, device=z.device, generator=generator)
    lam = sample_lambda(n, alpha, device=z.device, generator=generator).to(z.dtype)[:, None]
    mixed = torch.lerp(z[partners], z, lam)
    mixed_targets = torch.lerp(targets[partners], targets, lam)
    logits, mixed_logits = classify(classifier, torch.cat([z, mixed]), num_classes).split(n)
    loss = mixed_cross_entropy(logits, labels, mixed_logits, mixed_targets, sample_weights=weights)
    return loss, logits
