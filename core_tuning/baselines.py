"""What every objective returns, and the two that Core-tuning is compared with: CE and CE-Con."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from .arguments import FEATURES, LABELS, WEIGHTS, check_tensors
from .checks import check_choice, check_range
from .errors import UserError
from .heads import ProjectionHead
from .losses import supervised_contrastive
from .smoothing import Classifier, cross_entropy


class LossTerms(NamedTuple):
    """Scalars total = cross_entropy + eta contrastive, and the logits (n, K) of the originals."""

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor
    logits: Tensor


class CrossEntropyLoss(nn.Module):
    """Cross-entropy, optionally with manifold mixup of the features.

    Args:
        num_classes: K, at least 1; needed for manifold mixup only.
        mixing: "none", or "manifold": adds the mean cross-entropy of n mixtures of random pairs,
            factors from Beta(alpha, alpha) (row 3 of Table 2, row 2 of Table 24).
        alpha: parameter of the Beta distribution.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self, num_classes: int | None = None, *, mixing: str = "none", alpha: float = 1.0
    ) -> None:
        super().__init__()
        check_choice("mixing", mixing, ("manifold", "none"))
        check_range("alpha", alpha)
        if num_classes is not None:
            check_range("num_classes", num_classes)
        elif mixing == "manifold":
            raise UserError("mixing is 'manifold' without num_classes: give the number of classes.")
        self.num_classes = num_classes
        self.mixing = mixing
        self.alpha = alpha

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        *,
        generator: Generator | None = None,
        weights: Tensor | None = None,
    ) -> LossTerms:
        """Compute the loss of features (n, d), labels (n,) and a classifier (m, d) -> (m, K).

        With weights w (n,) of the samples each mean is sum_i w_i CE_i / sum_i w_i; the mixture
        of sample i, the one its mixing factor belongs to, carries w_i.

        Raises:
            UserError: an argument has another shape, dtype or device, the classifier another
                number of classes, or on the CPU a label is none of 0 to K - 1.
        """
        check_tensors(
            features=(features, FEATURES),
            labels=(labels, LABELS),
            weights=(weights, WEIGHTS),
            generator=generator,
        )
        loss, logits = cross_entropy(
            features,
            labels,
            classifier,
            manifold=self.mixing == "manifold",
            num_classes=self.num_classes,
            alpha=self.alpha,
            generator=generator,
            weights=weights,
        )
        return LossTerms(loss, loss, torch.zeros_like(loss), logits)


class CEContrastiveLoss(nn.Module):
    """Cross-entropy plus eta times the supervised contrastive loss (Eq. 1): CE-Con.

    Args:
        feature_dim: d, the width of the encoder features.
        eta: weight of the contrastive loss.
        temperature: tau.
        projection_dim: width of the contrastive features.
        projection_depth: number of linear layers of the projection head.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        eta: float = 0.1,
        temperature: float = 0.07,
        projection_dim: int = 256,
        projection_depth: int = 2,
    ) -> None:
        super().__init__()
        check_range("eta", eta)
        check_range("temperature", temperature)
        self.eta = eta
        self.temperature = temperature
        self.projection = ProjectionHead(feature_dim, projection_dim, projection_depth)

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        *,
        generator: Generator | None = None,
        weights: Tensor | None = None,
    ) -> LossTerms:
        """Compute the loss of features (n, d), labels (n,) and a classifier (m, d) -> (m, K).

        With weights w (n,) of the samples both means are weighted by w; the contrastive one is
        over the anchors with a class mate, and a sample of weight 0 still contrasts with others.
        Nothing is random here; `generator` is accepted so that all objectives are called alike.

        Raises:
            UserError: an argument has another shape, dtype or device, or on the CPU a label is
                none of 0 to K - 1.
        """
        check_tensors(
            features=(features, FEATURES),
            labels=(labels, LABELS),
            weights=(weights, WEIGHTS),
            generator=generator,
            sizes={"d": self.projection.feature_dim},
        )
        classified, logits = cross_entropy(features, labels, classifier, weights=weights)
        contrastive = supervised_contrastive(
            self.projection(features), labels, temperature=self.temperature, weights=weights
        )
        return LossTerms(classified + self.eta * contrastive, classified, contrastive, logits)
