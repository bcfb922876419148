"""The fine-tuning objectives: CE, CE-Con and Core-tuning, and what all methods share.

    objective = CoreTuningLoss(feature_dim=2048, num_classes=10)
    loss = objective(features, labels, classifier).total

Each is called on encoder features, labels and the caller's classifier, and owns its projection
head: give the optimiser the parameters of encoder, classifier and objective.

Labels may have any integer dtype. Whatever has another shape, dtype or device than it must have is
refused in one sentence, on any device. A label that is none of 0 to K - 1, or a weight that is
negative or not finite, is refused on the CPU; on a GPU, which nothing here waits for, such a label
fails an assertion of the kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from .arguments import FACTORS, FEATURES, LABELS, PARTNERS, WEIGHTS, Spec, check_tensors
from .checks import check_choice, check_range
from .errors import UserError
from .heads import ProjectionHead
from .losses import (
    POSITIVES,
    Classifier,
    classify,
    focal_contrastive,
    hard_cross_entropy,
    mixed_cross_entropy,
    one_hot,
    supervised_contrastive,
)
from .mining import mine_pairs, mix_pairs, sample_lambda
from .precision import at_least_float32

MIXING = ("hard", "manifold", "none")
Draws = Mapping[str, Tensor]


class LossTerms(NamedTuple):
    """Scalars total = cross_entropy + eta contrastive, and the logits (n, K) of the originals."""

    total: Tensor
    cross_entropy: Tensor
    contrastive: Tensor
    logits: Tensor


class Objective(nn.Module):
    """What a method is: a loss of features, labels and a classifier. Subclasses `compute` it.

    Attributes:
        random: the random numbers that it needs by name, in the order they are drawn.
        weighted: takes weights of the samples.
    """

    random: tuple[str, ...] = ()
    weighted = True

    def __init__(self, **ranges: float | None) -> None:
        """Check hyper-parameters by their names; None is not checked."""
        super().__init__()
        for name, value in ranges.items():
            if value is not None:
                check_range(name, value)

    def draw(
        self,
        n: int,
        device: torch.device | str | None = None,
        generator: Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw the random numbers of a batch of n samples, each (n,)."""
        return {}

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        *,
        draws: Draws | None = None,
        generator: Generator | None = None,
        weights: Tensor | None = None,
    ) -> LossTerms:
        """Compute the loss of features (n, d), labels (n,) and a classifier (m, d) -> (m, K).

        Args:
            features: of any floating dtype; the loss is float32, or float64 if they are.
            labels: class indices.
            classifier: the caller's, of any dtype.
            draws: what `draw` returned, for torch.compile, torch.func and repeated steps; drawn
                here with `generator` if None.
            generator: on the features' device.
            weights: w (n,) of the samples, non-negative and finite, of any real dtype, of which
                only the ratios count; None weighs all alike. Each mean is weighted: an original
                by w_i, what is generated for anchor i by w_i too (with manifold mixup the mixture
                whose mixing factor belongs to i), and the contrastive loss of anchor i by w_i; a
                mean whose weights are all 0 is an exact 0. A sample of weight 0 is still mined,
                mixed and contrasted with by the others.

        Raises:
            UserError: an argument has another shape, dtype or device, the classifier another
                number of classes, `draws` are not those of this objective, it takes no weights, or
                on the CPU a label is none of 0 to K - 1.
        """
        if weights is not None and not self.weighted:
            raise UserError(
                f"weights are given to {type(self).__name__}, which does not take them: leave "
                "them out, or use CoreTuningLoss."
            )
        projection = getattr(self, "projection", None)
        if draws is None:
            drawn = {}
        elif set(draws) == set(self.random):
            drawn = {name: (draws[name], _draw_spec(name)) for name in self.random}
        else:
            raise UserError(
                f"draws are {_list(draws)}: expected {_list(self.random)}; make them with "
                "draw(n, device)."
            )
        check_tensors(
            features=(features, FEATURES),
            labels=(labels, LABELS),
            weights=(weights, WEIGHTS),
            **drawn,
            sizes={"d": projection.feature_dim} if isinstance(projection, ProjectionHead) else {},
        )
        if draws is None:
            draws = self.draw(len(labels), features.device, generator)
        return self.compute(features, labels, classifier, draws, weights)

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        draws: Draws,
        weights: Tensor | None,
    ) -> LossTerms:
        """Compute the loss of arguments that `forward` has checked."""
        raise NotImplementedError


def _draw_spec(name: str) -> Spec:
    return PARTNERS if name == "partners" else FACTORS


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


MANIFOLD = ("partners", "lam")


def draw_manifold(
    n: int, alpha: float, device: torch.device | str | None, generator: Generator | None
) -> dict[str, Tensor]:
    """Draw n partners and their mixing factors from Beta(alpha, alpha)."""
    return {
        "partners": torch.randperm(n, device=device, generator=generator),
        "lam": sample_lambda(n, alpha, device=device, generator=generator),
    }


def cross_entropy(
    features: Tensor,
    labels: Tensor,
    classifier: Classifier,
    *,
    num_classes: int | None = None,
    draws: Draws | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of features (n, d), and their logits (n, K).

    `draws` of `draw_manifold` add the mean cross-entropy of n mixtures with random partners,
    lam_i z_i + (1 - lam_i) z_partner(i): L_ce^m with manifold mixup (row 3 of Table 2, row 2 of
    Table 24). Each mean is weighted by `weights` (n,), if given, a mixture by that of sample i.

    Raises:
        UserError: the classifier or `weights` do not fit, or on the CPU a label is none of 0 to
            K - 1.
    """
    if not draws or num_classes is None:
        logits = classify(classifier, features, num_classes)
        return hard_cross_entropy(logits, labels, weights), logits
    z = at_least_float32(features)
    targets = one_hot(labels, num_classes, z.dtype)
    partners, lam = draws["partners"], draws["lam"].to(z.dtype)[:, None]
    mixed = torch.lerp(z.index_select(0, partners), z, lam)
    mixed_targets = torch.lerp(targets.index_select(0, partners), targets, lam)
    logits, mixed_logits = classify(classifier, torch.cat([z, mixed]), num_classes).chunk(2)
    loss = mixed_cross_entropy(logits, labels, mixed_logits, mixed_targets, sample_weights=weights)
    return loss, logits


class CrossEntropyLoss(Objective):
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
        super().__init__(alpha=alpha, num_classes=num_classes)
        check_choice("mixing", mixing, ("manifold", "none"))
        if mixing == "manifold" and num_classes is None:
            raise UserError("mixing is 'manifold' without num_classes: give the number of classes.")
        self.num_classes = num_classes
        self.random = MANIFOLD if mixing == "manifold" else ()
        self.alpha = alpha

    def draw(
        self,
        n: int,
        device: torch.device | str | None = None,
        generator: Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw the partners (n,) and mixing factors (n,) of manifold mixup, if it is chosen."""
        return draw_manifold(n, self.alpha, device, generator) if self.random else {}

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        draws: Draws,
        weights: Tensor | None,
    ) -> LossTerms:
        """Compute the cross-entropy; the contrastive term is 0."""
        loss, logits = cross_entropy(
            features,
            labels,
            classifier,
            num_classes=self.num_classes,
            draws=draws,
            weights=weights,
        )
        return LossTerms(loss, loss, torch.zeros_like(loss), logits)


class CEContrastiveLoss(Objective):
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
        super().__init__(eta=eta, temperature=temperature)
        self.eta = eta
        self.temperature = temperature
        self.projection = ProjectionHead(feature_dim, projection_dim, projection_depth)

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        draws: Draws,
        weights: Tensor | None,
    ) -> LossTerms:
        """Compute both means; the contrastive one is over the anchors with a class mate."""
        classified, logits = cross_entropy(features, labels, classifier, weights=weights)
        contrastive = supervised_contrastive(
            self.projection(features), labels, temperature=self.temperature, weights=weights
        )
        return LossTerms(classified + self.eta * contrastive, classified, contrastive, logits)


class CoreTuningLoss(Objective):
    """The Core-tuning objective L_ce^m + eta L_con^f (Section 4.2).

    Args:
        feature_dim: d, the width of the encoder features.
        num_classes: K, at least 1; with one class alone the cross-entropy is 0.
        eta: weight of the contrastive loss; the paper selects it from {0.1, 1, 10}.
        alpha: parameter of Beta(alpha, alpha); from {0.1, 1, 10}.
        temperature: tau.
        lambda_n: lower clip of the mixing factor of the semi-hard negatives (Table 22).
        lambda_p: lower clip of that of the hard positives (Table 22).
        focal: weigh pairs by 1 - p_ij (Table 2).
        mixing: "hard" is the hardness-directed mixup; "manifold" mixes random pairs, for the
            classifier alone; "none" mixes nothing (Table 2).
        positives: "all" or "generated" (Table 23).
        smooth_classifier: train the classifier on the mixtures too (Table 24).
        projection_dim: width of the contrastive features (Appendix E.1).
        projection_depth: number of linear layers of the projection head (Appendix E.1).

    Raises:
        UserError: an argument is out of its range.
    """

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
        focal: bool = True,
        mixing: str = "hard",
        positives: str = "all",
        smooth_classifier: bool = True,
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
        check_choice("mixing", mixing, MIXING)
        check_choice("positives", positives, POSITIVES)
        if positives == "generated" and mixing != "hard":
            raise UserError(
                f"positives is 'generated' with mixing '{mixing}', which generates none: "
                "use mixing 'hard'."
            )
        self.num_classes = num_classes
        self.eta = eta
        self.alpha = alpha
        self.temperature = temperature
        self.lambda_n = lambda_n
        self.lambda_p = lambda_p
        self.focal = focal
        self.positives = positives
        self.smooth_classifier = smooth_classifier
        self.projection = ProjectionHead(feature_dim, projection_dim, projection_depth)
        if mixing == "hard":
            self.random = ("uniform", "lam_positive", "lam_negative")
        elif mixing == "manifold" and smooth_classifier:
            self.random = MANIFOLD
        self.mixing = mixing

    def draw(
        self,
        n: int,
        device: torch.device | str | None = None,
        generator: Generator | None = None,
    ) -> dict[str, Tensor]:
        """Draw what chooses the random negatives and the mixing factors, each (n,)."""
        if self.random == MANIFOLD:
            return draw_manifold(n, self.alpha, device, generator)
        if not self.random:
            return {}
        factors = partial(sample_lambda, n, self.alpha, device=device, generator=generator)
        return {
            "uniform": torch.rand(n, device=device, generator=generator),
            "lam_positive": factors(minimum=self.lambda_p),
            "lam_negative": factors(minimum=self.lambda_n),
        }

    def compute(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        draws: Draws,
        weights: Tensor | None,
    ) -> LossTerms:
        """Mine, mix, classify and contrast; the originals alone where mixing is not hard."""
        contrast = partial(
            focal_contrastive,
            labels=labels,
            temperature=self.temperature,
            focal=self.focal,
            weights=weights,
        )
        if self.mixing != "hard":
            classified, logits = cross_entropy(
                features,
                labels,
                classifier,
                num_classes=self.num_classes,
                draws=draws,
                weights=weights,
            )
            contrastive = contrast(
                self.projection(features), hard_positives=None, hard_negatives=None
            )
            return LossTerms(classified + self.eta * contrastive, classified, contrastive, logits)

        n = len(labels)
        z = at_least_float32(features)  # (n, d)
        targets = one_hot(labels, self.num_classes, z.dtype)  # (n, K)
        pairs = mine_pairs(z, labels, uniform=draws["uniform"])
        mixed = mix_pairs(z, targets, pairs, draws["lam_positive"], draws["lam_negative"])
        everything = torch.cat([z, mixed.positive, mixed.negative])  # (3n, d)
        if self.smooth_classifier:
            all_logits = classify(classifier, everything, self.num_classes)  # (3n, K)
            logits, mixed_logits = all_logits.split([n, 2 * n])
            classified = mixed_cross_entropy(
                logits,
                labels,
                mixed_logits,
                torch.cat([mixed.positive_targets, mixed.negative_targets]),
                weights=pairs.has_negative.repeat(2),
                sample_weights=weights,
            )
        else:
            classified, logits = cross_entropy(
                features, labels, classifier, num_classes=self.num_classes, weights=weights
            )
        originals, hard_positives, hard_negatives = self.projection(everything).split(n)
        contrastive = contrast(
            originals,
            hard_positives=hard_positives,
            hard_negatives=hard_negatives,
            positives=self.positives,
            has_negative=pairs.has_negative,
        )
        return LossTerms(classified + self.eta * contrastive, classified, contrastive, logits)
