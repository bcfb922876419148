"""Hard pair mining and hardness-directed mixup (Section 4.1).

Nothing here waits for the device: no sample is looped over and no value is read back.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .arguments import (
    FACTORS,
    FEATURES,
    LABELS,
    PARTNERS,
    TARGETS,
    UNIFORM,
    check_tensors,
)
from .checks import check_range
from .errors import UserError
from .precision import in_full_precision


class Pairs(NamedTuple):
    """Partners of each anchor, as indices into the batch. Each field has shape (n,).

    Attributes:
        hardest_positive: same class, lowest cosine similarity; the anchor itself if it has no
            class mate.
        hardest_negative: other class, highest cosine similarity.
        random_negative: uniform over the samples of other classes.
        has_negative: False where the batch holds no other class; both negatives of such an
            anchor are the anchor itself, to be left out.
    """

    hardest_positive: Tensor
    hardest_negative: Tensor
    random_negative: Tensor
    has_negative: Tensor


class Mixtures(NamedTuple):
    """Generated samples: features (n, d) and soft targets (n, K), one of each kind per anchor."""

    positive: Tensor
    positive_targets: Tensor
    negative: Tensor
    negative_targets: Tensor


@torch.no_grad()
@in_full_precision
def mine_pairs(
    features: Tensor,
    labels: Tensor,
    *,
    uniform: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Pairs:
    """Find the hardest pairs of each anchor and a random negative (Section 4.1).

    Args:
        features: encoder features (n, d); any floating dtype.
        labels: class indices (n,), of any integer dtype.
        uniform: random numbers (n,) in [0, 1] that choose the random negatives; drawn if None.
        generator: what they are drawn with, on the features' device.

    Raises:
        UserError: an argument is of another shape, dtype or device.
    """
    check_tensors(
        features=(features, FEATURES),
        labels=(labels, LABELS),
        uniform=(uniform, UNIFORM),
    )
    if uniform is None:
        uniform = torch.rand(len(labels), device=labels.device, generator=generator)
    products = features @ features.T  # (n, n)
    limits = torch.finfo(products.dtype)
    # A row's own norm does not change its order: |z_i| cos(z_i, z_j) ranks like the cosine.
    products *= products.diagonal().clamp(min=limits.tiny).rsqrt()
    other_class = labels[:, None] != labels  # (n, n)
    # The anchor itself ranks behind every candidate and before every sample that is none, so
    # that it stands in where there is no candidate.
    positives = products.masked_fill(other_class, math.inf).fill_diagonal_(limits.max)
    negatives = products.masked_fill_(~other_class, -math.inf).fill_diagonal_(limits.min)
    hardest_positive, hardest_negative = positives.argmin(dim=1), negatives.argmax(dim=1)
    random_negative, has_negative = _choose_negatives(labels, uniform)
    return Pairs(hardest_positive, hardest_negative, random_negative, has_negative)


def _choose_negatives(labels: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Choose for each sample one of another class, uniformly, in O(n log n)."""
    n = labels.shape[0]
    # Stable, so that equal draws give equal negatives on every device.
    sorted_labels, order = labels.sort(stable=True)
    # Sorted by class, the samples of other classes are all those outside one block.
    block_start = torch.searchsorted(sorted_labels, labels)
    block_size = torch.searchsorted(sorted_labels, labels, right=True) - block_start
    candidates = n - block_size
    rank = torch.minimum((uniform * candidates).long(), candidates - 1)
    rank = rank + block_size * (rank >= block_start)
    has_negative = candidates > 0
    anchors = torch.arange(n, device=labels.device)
    return torch.where(has_negative, order[rank.clamp(0, n - 1)], anchors), has_negative


def sample_lambda(
    n: int,
    alpha: float,
    *,
    minimum: float = 0.0,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw n >= 1 mixing factors from Beta(alpha, alpha), clipped from below at `minimum`.

    Drawn by Bailey's polar method (1994): with U, V uniform and w = U^(1/alpha),
    T = sqrt(2 alpha (1/w - 1)) cos(2 pi V) is Student-t with 2 alpha degrees of freedom, and
    (1 + T / sqrt(2 alpha + T^2)) / 2 is Beta(alpha, alpha). It rejects nothing, so that it
    neither waits for the device nor draws a varying number of random numbers.

    Returns:
        (n,), float32, in [minimum, 1].

    Raises:
        UserError: n or alpha is out of range, or `minimum` is outside [0, 1].
    """
    if n < 1:
        raise UserError(f"n is {n}: expected at least 1 mixing factor.")
    check_range("alpha", alpha)
    check_range("minimum", minimum)
    u, v = torch.rand(2, n, device=device, generator=generator).unbind()
    cosine = torch.cos(2 * math.pi * v)
    # 1 - U instead of U, which may be 0; far in the tail w underflows and lambda is 0 or 1.
    w = torch.exp(torch.log1p(-u) / alpha).clamp(min=torch.finfo(u.dtype).tiny)
    spread = w + (1 - w) * cosine.square()
    sine = torch.sqrt((1 - w) / spread) * cosine.abs()
    # (1 - sine) / 2 without the cancellation, so that small factors keep their precision.
    smaller = w / (2 * spread * (1 + sine))
    return torch.where(cosine < 0, smaller, 1 - smaller).clamp(minimum, 1.0)


@in_full_precision
def mix_pairs(
    features: Tensor, targets: Tensor, pairs: Pairs, lam_positive: Tensor, lam_negative: Tensor
) -> Mixtures:
    """Generate a hard positive and a semi-hard negative for each anchor (Section 4.1).

    z+ = lam z_hp + (1 - lam) z_hn and z- = (1 - lam) z_i + lam z_rn, targets alike. Gradient
    flows through both ends of each mixture.

    Args:
        features: encoder features (n, d).
        targets: one-hot or soft targets (n, K).
        pairs: partners from `mine_pairs`.
        lam_positive: mixing factors (n,) of the hard positives.
        lam_negative: mixing factors (n,) of the semi-hard negatives.

    Raises:
        UserError: an argument is of another shape, dtype or device.
    """
    check_tensors(
        features=(features, FEATURES),
        targets=(targets, TARGETS),
        hardest_positive=(pairs.hardest_positive, PARTNERS),
        hardest_negative=(pairs.hardest_negative, PARTNERS),
        random_negative=(pairs.random_negative, PARTNERS),
        lam_positive=(lam_positive, FACTORS),
        lam_negative=(lam_negative, FACTORS),
    )

    def mix(values: Tensor) -> tuple[Tensor, Tensor]:
        hardest_positive, hardest_negative, random_negative = (
            values.index_select(0, partners.long()) for partners in pairs[:3]
        )
        towards_positive, towards_random = (
            lam.to(values.dtype)[:, None] for lam in (lam_positive, lam_negative)
        )
        return (
            torch.lerp(hardest_negative, hardest_positive, towards_positive),
            torch.lerp(values, random_negative, towards_random),
        )

    (positive, negative), (positive_targets, negative_targets) = mix(features), mix(targets)
    return Mixtures(positive, positive_targets, negative, negative_targets)
