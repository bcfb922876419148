"""Slow references, written from the paper's equations: one anchor and one pair at a time.

They share no code with the package, so an agreement between the two means something.
"""

import types

import pytest
import torch


def cosine(a, b):
    """The cosine of two vectors; a zero vector is orthogonal to everything."""
    if a.norm() == 0 or b.norm() == 0:
        return 0.0
    # Dividing by the largest entry first keeps the squares from over- and underflowing.
    a, b = a / a.abs().max(), b / b.abs().max()
    return float(a @ b / (a.norm() * b.norm()))


def others(labels, i):
    """(class mates of i other than i, samples of other classes), as index lists."""
    labels = [int(y) for y in labels]
    mates = [k for k, y in enumerate(labels) if y == labels[i] and k != i]
    return mates, [k for k, y in enumerate(labels) if y != labels[i]]


def hardest(features, labels):
    """Lists (hardest positive, hardest negative); None where there is no other class."""
    features = features.detach().double()
    positives, negatives = [], []
    for i in range(len(labels)):
        mates, rest = others(labels, i)
        near = [cosine(features[i], features[k]) for k in range(len(labels))]
        positives.append(min(mates, key=lambda k: near[k]) if mates else i)
        negatives.append(max(rest, key=lambda k: near[k]) if rest else None)
    return positives, negatives


def mean_or_zero(terms, *graph):
    if terms:
        return sum(terms) / len(terms)
    return sum(tensor.sum() for tensor in graph) * 0


def supervised_contrastive(embeddings, labels, temperature=0.07):
    terms = []
    for i in range(len(labels)):
        mates, rest = others(labels, i)
        if not mates:
            continue
        everyone = torch.stack([embeddings[i] @ embeddings[k] for k in mates + rest]) / temperature
        log_sum = torch.logsumexp(everyone, 0)
        log_p = [embeddings[i] @ embeddings[j] / temperature - log_sum for j in mates]
        terms.append(-sum(log_p) / len(mates))
    return mean_or_zero(terms, embeddings)


def focal_contrastive(
    embeddings,
    labels,
    hard_positives,
    hard_negatives,
    temperature=0.07,
    focal=True,
    positives="all",
    has_negative=None,
    detach_weight=False,
):
    terms = []
    for i in range(len(labels)):
        mates, rest = others(labels, i)
        generated = bool(rest) if has_negative is None else bool(has_negative[i])
        if positives == "all":
            positive_set = [embeddings[k] for k in mates]
            full_set = [embeddings[k] for k in mates + rest]
        else:
            positive_set, full_set = [], [embeddings[k] for k in rest]
        if generated:
            positive_set.append(hard_positives[i])
            full_set += [hard_positives[i], hard_negatives[i]]
        if not positive_set:
            continue
        log_sum = torch.logsumexp(
            torch.stack([embeddings[i] @ v for v in full_set]) / temperature, 0
        )
        summed = 0
        for v in positive_set:
            log_p = embeddings[i] @ v / temperature - log_sum
            weight = 1 - log_p.exp() if focal else torch.ones_like(log_p)
            summed = summed + (weight.detach() if detach_weight else weight) * log_p
        terms.append(-summed / len(positive_set))
    return mean_or_zero(terms, embeddings, hard_positives, hard_negatives)


def soft_cross_entropy(logits, target):
    """One sample."""
    return -sum(target[k] * (logits[k] - torch.logsumexp(logits, 0)) for k in range(len(logits)))


def cross_entropy(logits, labels):
    rows = [torch.logsumexp(row, 0) - row[int(y)] for row, y in zip(logits, labels, strict=True)]
    return sum(rows) / len(rows)


def mixed_cross_entropy(logits, labels, mixed_logits, mixed_targets, weights=None):
    kept = [j for j in range(len(mixed_logits)) if weights is None or weights[j] != 0]
    mixed = [soft_cross_entropy(mixed_logits[j], mixed_targets[j]) for j in kept]
    return cross_entropy(logits, labels) + mean_or_zero(mixed, mixed_logits)


def released_pairs(features, labels):
    """Masked similarities are 0, so the extremum may be a zero; the first one wins a tie."""
    features = features.detach().double()
    positives, negatives = [], []
    for i in range(len(labels)):
        mates, rest = others(labels, i)
        near = [cosine(features[i], features[k]) for k in range(len(labels))]
        of_mates = [near[k] if k in mates else 0.0 for k in range(len(labels))]
        of_rest = [near[k] if k in rest else 0.0 for k in range(len(labels))]
        positive = of_mates.index(min(of_mates))
        positives.append(i if positive == 0 else positive)
        negatives.append(of_rest.index(max(of_rest)))
    return positives, negatives


def released_contrastive(embeddings, targets, temperature=0.07):
    """Every row is an anchor; a class is an exact soft label; the mean is over all columns."""
    rows = len(embeddings)
    classes = [tuple(target.tolist()) for target in targets]
    summed, with_positive = embeddings.sum() * 0, 0
    for i in range(rows):
        rest = [k for k in range(rows) if k != i]
        positive = [k for k in rest if classes[k] == classes[i]]
        if not positive:
            continue
        with_positive += 1
        log_sum = torch.logsumexp(
            torch.stack([embeddings[i] @ embeddings[k] for k in rest]) / temperature, 0
        )
        for j in positive:
            log_p = embeddings[i] @ embeddings[j] / temperature - log_sum
            summed = summed - (1 - log_p.exp()) * log_p / rows
    return summed / max(with_positive, 1)


def released_cross_entropy(logits, targets):
    rows = [soft_cross_entropy(a, t) for a, t in zip(logits, targets, strict=True)]
    return sum(rows) / len(rows)


@pytest.fixture(scope="session")
def reference():
    return types.SimpleNamespace(
        cosine=cosine,
        others=others,
        hardest=hardest,
        supervised_contrastive=supervised_contrastive,
        focal_contrastive=focal_contrastive,
        cross_entropy=cross_entropy,
        mixed_cross_entropy=mixed_cross_entropy,
        released_pairs=released_pairs,
        released_contrastive=released_contrastive,
        released_cross_entropy=released_cross_entropy,
    )
