"""What the authors' public release computes, where it differs from the paper's equations.

The release (NeurIPS 2021, CIFAR only) is another reading of the method: its mining rarely finds
the hardest positive, each distinct soft label becomes a class of its own, and the encoder learns
through mixtures alone. `ReleasedCoreTuningLoss` reproduces it, so that a user can tell which of the
two a number belongs to.

One thing is not reproduced: the release tells soft labels apart by a hash that collides for more
than 64 classes; here they are compared exactly.

Every function raises a UserError where an argument has another shape, dtype or device.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import (
    FACTORS,
    FEATURES,
    LABELS,
    MIXED_EMBEDDINGS,
    MIXED_LOGITS,
    MIXED_TARGETS,
    PARTNERS,
    TARGETS,
    check_tensors,
)
from .checks import check_range
from .heads import ProjectionHead
from .losses import Classifier, classify, one_hot
from .mining import sample_lambda
from .objectives import Draws, LossTerms, Objective
from .precision import at_least_float32, in_full_precision


class ReleasedPairs(NamedTuple):
    """Partners of each anchor as the release finds them, indices (n,)."""

    hard_positive: Tensor
    hard_negative: Tensor


@torch.no_grad()
@in_full_precision
def released_pairs(features: Tensor, labels: Tensor) -> ReleasedPairs:
    """Find partners among cosines whose masked entries are 0.

    Where no class mate has a negative cosine, as with ReLU features, argmin picks the first
    masked entry, a sample of another class or the anchor itself; index 0 means the anchor.

    Args:
        features: encoder features (n, d).
        labels: class indices (n,).
    """
    check_tensors(features=(features, FEATURES), labels=(labels, LABELS))
    unit = F.normalize(features, dim=1)
    cosine = unit @ unit.T
    same_class = (labels[:, None] == labels).to(cosine.dtype)
    mates = same_class.clone().fill_diagonal_(0)
    hard_positive = (cosine * mates).argmin(dim=1)
    hard_negative = (cosine * (1 - same_class)).argmax(dim=1)
    anchors = torch.arange(len(labels), device=labels.device)
    return ReleasedPairs(torch.where(hard_positive == 0, anchors, hard_positive), hard_negative)


@in_full_precision
def released_mixtures(
    features: Tensor,
    targets: Tensor,
    partners: Tensor,
    hard_positive: Tensor,
    hard_negative: Tensor,
    lam_negative: Tensor,
    lam_positive: Tensor,
) -> tuple[Tensor, Tensor]:
    """Stack the originals, their "negatives" and their "hard positives".

    Args:
        features: encoder features (n, d).
        targets: one-hot targets (n, K).
        partners: a permutation (n,); the partner of a "negative" may be of the same class.
        hard_positive: indices (n,) from `released_pairs`.
        hard_negative: indices (n,) from `released_pairs`.
        lam_negative: mixing factors (n,), clipped at 0.8 in the release.
        lam_positive: mixing factors (n,).

    Returns:
        Features (3n, d), whose first n rows are detached, and soft targets (3n, K).
    """
    check_tensors(
        features=(features, FEATURES),
        targets=(targets, TARGETS),
        partners=(partners, PARTNERS),
        hard_positive=(hard_positive, PARTNERS),
        hard_negative=(hard_negative, PARTNERS),
        lam_negative=(lam_negative, FACTORS),
        lam_positive=(lam_positive, FACTORS),
    )

    def stack(values: Tensor) -> Tensor:
        towards_partner = lam_negative.to(values.dtype)[:, None]
        towards_positive = lam_positive.to(values.dtype)[:, None]
        negative = (1 - towards_partner) * values + towards_partner * values[partners]
        positive = (
            towards_positive * values[hard_positive]
            + (1 - towards_positive) * values[hard_negative]
        )
        return torch.cat([values.detach(), negative, positive])

    return stack(features), stack(targets)


@in_full_precision
def released_contrastive(
    embeddings: Tensor, targets: Tensor, *, temperature: float = 0.07
) -> Tensor:
    """Focal contrastive loss among all rows; two rows are positives if their targets are equal.

    The mean runs over all m columns, not over |P_i|, and the sum over anchors is divided by the
    number of those that have a positive; if none has, the loss is 0.

    Args:
        embeddings: L2-normalised contrastive features (m, c); m is 3n.
        targets: soft targets (m, K).
        temperature: tau.
    """
    check_range("temperature", temperature)
    check_tensors(embeddings=(embeddings, MIXED_EMBEDDINGS), targets=(targets, MIXED_TARGETS))
    diagonal = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    # The largest difference of two soft labels is exactly 0 when they are the same label.
    is_positive = (torch.cdist(targets, targets, p=float("inf")) == 0) & ~diagonal  # (m, m)
    nowhere = torch.finfo(embeddings.dtype).min / 2
    logits = (embeddings / temperature) @ embeddings.T
    log_p = F.log_softmax(logits.masked_fill_(diagonal, nowhere), dim=1)
    terms = torch.where(is_positive, torch.expm1(log_p) * log_p, 0.0)
    anchors = is_positive.any(dim=1).sum().clamp(min=1)
    return terms.mean(dim=1).sum() / anchors


@in_full_precision
def released_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft cross-entropy as one mean over all rows: logits (m, K), soft targets (m, K)."""
    check_tensors(logits=(logits, MIXED_LOGITS), targets=(targets, MIXED_TARGETS))
    return -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


class ReleasedCoreTuningLoss(Objective):
    """What the authors' release computes in the place of `CoreTuningLoss`, without its ablations.

    Args:
        feature_dim: d, the width of the encoder features.
        num_classes: K.
        eta: weight of the contrastive loss.
        alpha: parameter of Beta(alpha, alpha).
        temperature: tau.
        lambda_n: lower clip of the mixing factor of the "negatives".
        lambda_p: lower clip of that of the hard positives.
        projection_dim: width of the contrastive features.
        projection_depth: number of linear layers of the projection head.

    Raises:
        UserError: an argument is out of its range.
    """

    random = ("partners", "lam_negative", "lam_positive")
    weighted = False

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        *,
        eta: float = 0.1,
        alpha: float = 1.0,
        temperature: float = 0.07,
        lambda_n: float = 0.8,
        lambda_p: float = 0.0,
        projection_dim: int = 256,
        projection_depth: int = 2,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            eta=eta,
            alpha=alpha,
            temperature=temperature,
            lambda_n=lambda_n,
            lambda_p=lambda_p,
        )
        self.num_classes = num_classes
        self.eta = eta
        self.alpha = alpha
        self.temperature = temperature
        self.lambda_n = lambda_n
        self.lambda_p = lambda_p
        self.projection = ProjectionHead(feature_dim, projection_dim, projection_depth)

    def draw(
        self,
        n: int,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw a permutation and the mixing factors, each (n,)."""
        factors = partial(sample_lambda, n, self.alpha, device=device, generator=generator)
        return {
            "partners": torch.randperm(n, device=device, generator=generator),
            "lam_negative": factors(minimum=self.lambda_n),
            "lam_positive": factors(minimum=self.lambda_p),
        }

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        draws: Draws,
        weights: Tensor | None,
    ) -> LossTerms:
        """Compute the release's two means over originals and mixtures alike."""
        z = at_least_float32(features)
        everything, targets = released_mixtures(
            z,
            one_hot(labels, self.num_classes, z.dtype),
            draws["partners"],
            *released_pairs(z, labels),
            draws["lam_negative"],
            draws["lam_positive"],
        )
        logits = classify(classifier, everything, self.num_classes)  # (3n, K)
        classified = released_cross_entropy(logits, targets)
        contrastive = released_contrastive(
            self.projection(everything), targets, temperature=self.temperature
        )
        total = classified + self.eta * contrastive
        return LossTerms(total, classified, contrastive, logits[: len(labels)])
