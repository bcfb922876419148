"""The objectives, checked without knowing in which order they draw their random numbers.

The features are linearly independent, so the mixing coefficients can be read off the rows that
the projection head or the classifier was given. From these the slow references recompute every
term and, because the rows are rebuilt as coefficients times features, every gradient.
"""

import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core_tuning.objectives import CoreTuningLoss, LossTerms
from core_tuning.released import ReleasedCoreTuningLoss

DIM, CLASSES = 16, 5
LABELS = {
    "balanced": [0, 1, 2, 0, 1, 2, 0, 1],
    "with_singletons": [4, 0, 0, 2, 1, 0, 1],
    "all_singletons": [3, 0, 4, 1],
    "two_different": [1, 0],
}
DEGENERATE = {"one": [2], "two_same": [1, 1], "one_class": [3, 3, 3, 3]}


class Recorder(nn.Module):
    """A classifier that remembers what it was asked to classify."""

    def __init__(self, dim=DIM, classes=CLASSES):
        super().__init__()
        self.linear = nn.Linear(dim, classes, bias=False).double()
        self.seen = []

    @property
    def weight(self):
        return self.linear.weight

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.linear(x)


def setup(labels, make, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(len(labels), DIM, dtype=torch.float64, requires_grad=True)
    return features, torch.tensor(labels), Recorder(), make().double()


def core(**options):
    return CoreTuningLoss(DIM, CLASSES, projection_dim=8, **options)


def released():
    return ReleasedCoreTuningLoss(DIM, CLASSES, projection_dim=8)


def run(objective, features, labels, classifier, seed=0):
    """The terms, and the rows that the head and the classifier saw."""
    rows = []
    hooks = []
    if hasattr(objective, "projection"):
        hooks.append(
            objective.projection.register_forward_pre_hook(
                lambda _, args: rows.append(args[0].detach().clone())
            )
        )
    classifier.seen.clear()
    terms = objective(features, labels, classifier, generator=torch.Generator().manual_seed(seed))
    for hook in hooks:
        hook.remove()
    assert isinstance(terms, LossTerms)
    return terms, torch.cat(rows) if rows else None, torch.cat(classifier.seen)


def coefficients(rows, features):
    """C with rows = C @ features."""
    mixing = rows @ torch.linalg.pinv(features.detach())
    torch.testing.assert_close(mixing @ features.detach(), rows, rtol=1e-7, atol=1e-7)
    return torch.round(mixing, decimals=9)


def support(row):
    return {k for k, value in enumerate(row.tolist()) if abs(value) > 1e-6}


def is_positive_block(block, hp, hn):
    return all(
        support(row) <= {hp[i], hn[i]} and abs(row.sum() - 1) < 1e-6 for i, row in enumerate(block)
    )


def is_negative_block(block, labels, minimum):
    """(1 - lambda) of the anchor itself and lambda >= minimum of one sample of another class."""
    for i, row in enumerate(block):
        partners = support(row) - {i}
        if len(partners) != 1 or labels[partners.pop()] == labels[i]:
            return False
        if abs(row.sum() - 1) > 1e-6 or not minimum - 1e-6 <= 1 - row[i] <= 1 + 1e-6:
            return False
    return True


def split_mixtures(rows, features, labels, reference, minimum):
    """(C of z+, C of z-); the originals must be the first n rows."""
    n = len(labels)
    assert rows.shape == (3 * n, DIM)
    mixing = coefficients(rows, features)
    torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
    hp, hn = reference.hardest(features, labels)
    for positive, negative in (
        (mixing[n : 2 * n], mixing[2 * n :]),
        (mixing[2 * n :], mixing[n : 2 * n]),
    ):
        if is_positive_block(positive, hp, hn) and is_negative_block(negative, labels, minimum):
            return positive, negative
    raise AssertionError(f"not the mixtures of the specification: {mixing[n:]}, {hp}, {hn}")


def one_hot(labels):
    return F.one_hot(labels, CLASSES).double()


def agree(terms, cross_entropy, contrastive, eta, parameters):
    """Both terms, their sum, and the gradient of the sum."""
    torch.testing.assert_close(terms.cross_entropy, cross_entropy, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(terms.contrastive, contrastive, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(terms.total, terms.cross_entropy + eta * terms.contrastive)
    mine = torch.autograd.grad(terms.total, parameters, allow_unused=True)
    theirs = torch.autograd.grad(cross_entropy + eta * contrastive, parameters, allow_unused=True)
    for a, b, x in zip(mine, theirs, parameters, strict=True):
        a = torch.zeros_like(x) if a is None else a
        b = torch.zeros_like(x) if b is None else b
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def parameters_of(features, classifier, objective):
    return [features, classifier.weight, *objective.parameters()]


@pytest.fixture(scope="session")
def kit():
    """The helpers above, which test modules cannot import."""
    return types.SimpleNamespace(
        DIM=DIM,
        CLASSES=CLASSES,
        LABELS=LABELS,
        DEGENERATE=DEGENERATE,
        setup=setup,
        core=core,
        released=released,
        run=run,
        coefficients=coefficients,
        support=support,
        is_positive_block=is_positive_block,
        split_mixtures=split_mixtures,
        one_hot=one_hot,
        agree=agree,
        parameters_of=parameters_of,
    )


BATCHES = {
    "varied_batch": LABELS,
    "one_class_batch": DEGENERATE,  # nothing can be generated for it
    "any_batch": LABELS | DEGENERATE,
}


@pytest.hookimpl(trylast=True)  # the batch comes after a test's own parameters
def pytest_generate_tests(metafunc):
    """Run a test that takes one of BATCHES once for the labels of each of its batches."""
    for name, batches in BATCHES.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, batches.values(), ids=batches)
