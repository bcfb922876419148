"""The three fine-tuning objectives: CE, CE-Con and Core-tuning.

Each is called on encoder features, labels and the caller's classifier, and owns its projection
head: give the optimiser the parameters of encoder, classifier and objective. Each takes `weights`
(n,) of the samples, non-negative and finite, of any real dtype, of which only the ratios
count; None weighs all alike. A mean whose weights are all 0 is an exact 0.

Labels may have any integer dtype. Whatever has another shape, dtype or device than it must have is
refused in one sentence, on any device. A label that is none of 0 to K - 1, or a weight that is
negative or not finite, is refused on the CPU; on a GPU, which nothing here waits for, such a label
fails an assertion of the kernels.
"""

from __future__ import annotations

from functools import partial

from torch import Generator, Tensor, nn

from .arguments import FEATURES, LABELS, WEIGHTS, check_tensors
from .baselines import CEContrastiveLoss, CrossEntropyLoss, LossTerms
from .checks import check_choice, check_range
from .errors import UserError
from .heads import ProjectionHead
from .losses import POSITIVES, focal_contrastive, mixed_cross_entropy
from .mining import mine_pairs, mix_with_originals, sample_lambda
from .precision import at_least_float32
from .smoothing import Classifier, classify, cross_entropy, one_hot

__all__ = [
    "MIXING",
    "CEContrastiveLoss",
    "CoreTuningLoss",
    "CrossEntropyLoss",
    "LossTerms",
]

MIXING = ("hard", "manifold", "none")


class CoreTuningLoss(nn.Module):
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
        super().__init__()
        check_range("num_classes", num_classes)
        check_range("eta", eta)
        check_range("alpha", alpha)
        check_range("temperature", temperature)
        check_range("lambda_n", lambda_n)
        check_range("lambda_p", lambda_p)
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
        self.mixing = mixing
        self.positives = positives
        self.smooth_classifier = smooth_classifier
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

        With weights w (n,) of the samples each mean is weighted: an original by w_i, what is
        generated for anchor i by w_i too (with manifold mixup the mixture whose mixing factor
        belongs to i), and the contrastive loss of anchor i by w_i. A sample of weight 0 is still
        mined, mixed and contrasted with by the others.

        Raises:
            UserError: an argument has another shape, dtype or device, the classifier another
                number of classes, or on the CPU a label is none of 0 to K - 1.
        """
        check_tensors(
            features=(features, FEATURES),
            labels=(labels, LABELS),
            weights=(weights, WEIGHTS),
            generator=generator,
            sizes={"d": self.projection.feature_dim},
        )
        compute = self._hardness_directed if self.mixing == "hard" else self._originals_only
        terms = compute(features, labels, classifier, generator, weights)
        classified, contrastive, logits = terms
        return LossTerms(classified + self.eta * contrastive, classified, contrastive, logits)

    def _hardness_directed(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        generator: Generator | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(labels)
        z = at_least_float32(features)  # (n, d)
        pairs = mine_pairs(z, labels, generator=generator)
        draw = partial(sample_lambda, n, self.alpha, device=z.device, generator=generator)
        everything, mixed_targets = mix_with_originals(
            z,
            one_hot(labels, self.num_classes, z.dtype),
            pairs,
            draw(minimum=self.lambda_p),
            draw(minimum=self.lambda_n),
        )  # (3n, d), (2n, K)
        if self.smooth_classifier:
            all_logits = classify(classifier, everything, self.num_classes)  # (3n, K)
            logits, mixed_logits = all_logits.split([n, 2 * n])
            classified = mixed_cross_entropy(
                logits,
                labels,
                mixed_logits,
                mixed_targets,
                weights=pairs.has_negative.repeat(2),
                sample_weights=weights,
            )
        else:
            classified, logits = cross_entropy(
                features, labels, classifier, num_classes=self.num_classes, weights=weights
            )
        originals, hard_positives, hard_negatives = self.projection(everything).split(n)
        contrastive = focal_contrastive(
            originals,
            labels,
            hard_positives,
            hard_negatives,
            temperature=self.temperature,
            focal=self.focal,
            positives=self.positives,
            has_negative=pairs.has_negative,
            weights=weights,
        )
        return classified, contrastive, logits

    def _originals_only(
        self,
        features: Tensor,
        labels: Tensor,
        classifier: Classifier,
        generator: Generator | None,
        weights: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Contrast the originals alone; any mixtures serve the classifier alone."""
        classified, logits = cross_entropy(
            features,
            labels,
            classifier,
            manifold=self.mixing == "manifold" and self.smooth_classifier,
            num_classes=self.num_classes,
            alpha=self.alpha,
            generator=generator,
            weights=weights,
        )
        contrastive = focal_contrastive(
            self.projection(features),
            labels,
            None,
            None,
            temperature=self.temperature,
            focal=self.focal,
            weights=weights,
        )
        return classified, contrastive, logits
