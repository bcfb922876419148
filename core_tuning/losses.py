"""Supervised and focal contrastive losses, and the cross-entropy of the smooth classifier.

Embeddings are contrastive features, L2-normalised by the caller (ProjectionHead does so). Every
loss is float32, or float64 if its inputs are, and never NaN in a batch of n >= 1.

Every loss takes a weight (n,) of each sample, non-negative and finite, of any real dtype. None
weighs all alike. The weights are relative: a common factor changes nothing, whatever its size.

Labels may have any integer dtype. Every loss raises a UserError where an argument has another
shape, dtype or device. Values, which a GPU would have to be waited for, are checked on the CPU
alone: class indices from 0 to K - 1 where K is known, and the weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import (
    CLASSIFIED,
    EMBEDDINGS,
    GENERATED,
    HAS_NEGATIVE,
    LABELS,
    LOGITS,
    MIXED_LOGITS,
    MIXED_TARGETS,
    MIXED_WEIGHTS,
    WEIGHTS,
    check_classes,
    check_tensors,
    check_values,
)
from .checks import check_choice, check_range
from .errors import UserError
from .precision import at_least_float32, call_in_own_dtype, in_full_precision

Classifier = Callable[[Tensor], Tensor]

POSITIVES = ("all", "generated")
LARGEST_WEIGHT = torch.finfo(torch.float64).max
# F.cross_entropy would leave out the samples of some label, by default -100: of none that occurs.
NO_LABEL = torch.iinfo(torch.int64).min


@in_full_precision
def weighted_mean(values: Tensor, weights: Tensor, counted: Tensor | None = None) -> Tensor:
    """Weighted mean sum_i w_i x_i / sum_i w_i; an exact 0 with a graph where all w_i are 0.

    Args:
        values: x (n,).
        weights: w (n,), non-negative and finite, of any dtype.
        counted: (n,), boolean or 0 and 1, of the values that the mean is over; None: all.

    Raises:
        UserError: the weights are not one for each value.
    """
    check_tensors(weights=(weights, WEIGHTS), sizes={"n": len(values)})
    check_values("weights", weights, 0, LARGEST_WEIGHT, "finite numbers of at least 0")
    if counted is not None:
        weights = weights * counted
    largest = weights.max()
    # Relative to the largest, the weights neither over- nor underflow, and their sum is at least
    # 1 unless all are 0.
    shares = (weights / torch.where(largest > 0, largest, 1.0)).to(values.dtype)
    return (shares * values).sum() / shares.sum().clamp(min=1)


@in_full_precision
def supervised_contrastive(
    embeddings: Tensor,
    labels: Tensor,
    *,
    temperature: float = 0.07,
    weights: Tensor | None = None,
) -> Tensor:
    """Supervised contrastive loss L_con (Eq. 1) on the n originals.

    Anchors without a class mate are left out of the mean; a batch that has none gives 0.

    Args:
        embeddings: L2-normalised contrastive features (n, c).
        labels: class indices (n,).
        temperature: tau.
        weights: w (n,) of each sample as an anchor, as in `focal_contrastive`.

    Raises:
        UserError: `weights` is not (n,).
    """
    return focal_contrastive(
        embeddings, labels, None, None, temperature=temperature, focal=False, weights=weights
    )


@in_full_precision
def focal_contrastive(
    embeddings: Tensor,
    labels: Tensor,
    hard_positives: Tensor | None,
    hard_negatives: Tensor | None,
    *,
    temperature: float = 0.07,
    focal: bool = True,
    positives: str = "all",
    has_negative: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Focal contrastive loss L_con^f (Section 4.1, hard pair reweighting).

    The anchors are the n originals. P_i holds the class mates of i and its own hard positive,
    A_i all other originals and its own two generated samples; nobody else's generated samples
    are in either. Anchors with an empty P_i are left out of the mean. With weights it is
    sum_i w_i l_i / sum_i w_i over the others, l_i being the loss of anchor i.

    Args:
        embeddings: L2-normalised contrastive features of the originals (n, c).
        labels: class indices (n,).
        hard_positives: embeddings (n, c) of each anchor's hard positive; None: none generated.
        hard_negatives: embeddings (n, c) of each anchor's semi-hard negative; None likewise.
        temperature: tau.
        focal: weigh each pair by 1 - p_ij; False gives the unweighted loss (Table 2).
        positives: "all", or "generated" for P_i = {z+}, with A_i its own two generated samples
            and the originals of other classes (Table 23).
        has_negative: boolean (n,); False leaves an anchor's generated samples out of both sets.
            None: False for anchors without a sample of another class, for whom nothing is
            generated.
        weights: w (n,) of each sample as an anchor. P_i and A_i are not weighted: a sample of
            weight 0 stays in those of the others. If no anchor with a P_i has a weight above 0,
            the loss is an exact 0.

    Raises:
        UserError: `positives` is neither "all" nor "generated", the temperature is out of range,
            one of `hard_positives` and `hard_negatives` is missing, or a tensor does not fit.
    """
    check_choice("positives", positives, POSITIVES)
    check_range("temperature", temperature)
    check_tensors(
        embeddings=(embeddings, EMBEDDINGS),
        labels=(labels, LABELS),
        hard_positives=(hard_positives, GENERATED),
        hard_negatives=(hard_negatives, GENERATED),
        has_negative=(has_negative, HAS_NEGATIVE),
        weights=(weights, WEIGHTS),
    )
    if (hard_positives is None) != (hard_negatives is None):
        missing = "hard_positives" if hard_positives is None else "hard_negatives"
        raise UserError(f"{missing} are missing beside the others: give both, or None for both.")
    same_class = labels[:, None] == labels  # (n, n)
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    left_out = diagonal if positives == "all" else same_class
    # Finite, so that an anchor with nothing to contrast with has gradient 0 instead of NaN.
    nowhere = torch.finfo(embeddings.dtype).min / 2
    logits = (embeddings / temperature) @ embeddings.T  # (n, n)
    logits = logits.masked_fill(left_out, nowhere)
    is_positive = same_class & ~left_out  # (n, n)
    if hard_positives is not None and hard_negatives is not None:
        generated = torch.stack(
            [(embeddings * hard_positives).sum(1), (embeddings * hard_negatives).sum(1)], dim=1
        )  # (n, 2)
        generated = generated / temperature
        exists = (~same_class).any(dim=1) if has_negative is None else has_negative  # (n,)
        generated = generated.masked_fill(~exists[:, None], nowhere)
        logits = torch.cat([logits, generated], dim=1)  # (n, n + 2)
        is_positive = torch.cat(
            [is_positive, exists[:, None], torch.zeros_like(exists)[:, None]], dim=1
        )
    return _contrast(logits, is_positive, focal, weights)


def _contrast(logits: Tensor, is_positive: Tensor, focal: bool, weights: Tensor | None) -> Tensor:
    """Average -1/|P_i| sum_{j in P_i} (1 - p_ij) log p_ij over the anchors that have a P_i.

    Args:
        logits: similarities over temperature (n, m), very negative outside A_i.
        is_positive: membership of P_i (n, m).
        focal: whether the weight 1 - p_ij is applied; it carries gradient.
        weights: of each anchor (n,); None: all alike.
    """
    log_p = F.log_softmax(logits, dim=1)
    # 1 - p as -expm1(log p) keeps the weight's precision where p is close to 1.
    terms = torch.expm1(log_p) * log_p if focal else -log_p
    counts = is_positive.sum(dim=1)
    per_anchor = torch.where(is_positive, terms, 0.0).sum(dim=1) / counts.clamp(min=1)
    if weights is None:
        return per_anchor.sum() / (counts > 0).sum().clamp(min=1)
    return weighted_mean(per_anchor, weights, counts > 0)


def hard_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of logits (n, K) and labels (n,); sum_i w_i CE_i / sum_i w_i of weights w.

    Raises:
        UserError: an argument does not fit, or on the CPU a label is none of 0 to K - 1.
    """
    check_tensors(logits=(logits, LOGITS), labels=(labels, LABELS), weights=(weights, WEIGHTS))
    check_classes(labels, logits.shape[1])
    reduction = "mean" if weights is None else "none"
    values = F.cross_entropy(logits, labels.long(), ignore_index=NO_LABEL, reduction=reduction)
    return values if weights is None else weighted_mean(values, weights)


@in_full_precision
def mixed_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    mixed_logits: Tensor,
    mixed_targets: Tensor,
    *,
    weights: Tensor | None = None,
    sample_weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of the smooth classifier, L_ce^m (Section 4.2): two means, added.

    With sample weights w it is sum_i w_i CE_i / sum_i w_i + sum_j u_j CE_j / sum_j u_j, where
    u_j is the weight of generated sample j times the sample weight of the anchor it was generated
    for; a mean whose weights are all 0 is an exact 0.

    Args:
        logits: classifier outputs (n, K) of the originals.
        labels: class indices (n,).
        mixed_logits: classifier outputs (m, K) of the generated samples; m is 2n in Core-tuning.
        mixed_targets: their soft targets (m, K).
        weights: (m,), 0 where nothing was generated and 1 elsewhere; the second mean is over
            the ones, and 0 if there are none.
        sample_weights: w (n,); m is then a multiple of n, and row j belongs to anchor j mod n.

    Raises:
        UserError: an argument does not fit, m is not a multiple of n beside `sample_weights`, or
            on the CPU a label is none of 0 to K - 1.
    """
    check_tensors(
        logits=(logits, LOGITS),
        labels=(labels, LABELS),
        mixed_logits=(mixed_logits, MIXED_LOGITS),
        mixed_targets=(mixed_targets, MIXED_TARGETS),
        weights=(weights, MIXED_WEIGHTS),
        sample_weights=(sample_weights, WEIGHTS),
    )
    original = hard_cross_entropy(logits, labels, sample_weights)
    mixed = -(mixed_targets * F.log_softmax(mixed_logits, dim=1)).sum(dim=1)  # (m,)
    if sample_weights is not None:
        of_anchors = sample_weights.repeat(len(mixed) // len(labels))
        return original + weighted_mean(mixed, of_anchors, weights)
    if weights is None:
        return original + mixed.mean()
    weights = weights.to(mixed.dtype)
    return original + (weights * mixed).sum() / weights.sum().clamp(min=1)


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
