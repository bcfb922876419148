"""Weights of the samples, against loops over one anchor and one pair at a time."""

import itertools

import pytest
import torch

from core_tuning.errors import UserError
from core_tuning.losses import (
    focal_contrastive,
    hard_cross_entropy,
    mixed_cross_entropy,
    supervised_contrastive,
    weighted_mean,
)

LABELS = {
    "balanced": [0, 1, 2, 0, 1, 2, 0, 1],
    "with_singletons": [4, 0, 0, 2, 1, 0, 1],
    "all_singletons": [3, 0, 4, 1],
    "one_class": [3, 3, 3, 3],
    "one": [2],
    "two_different": [1, 0],
    "many_classes": [119, 64, 63, 119, 0, 20, 64],
}
WEIGHTS = ["some_zero", "random", "one_only", "zero", "ones"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
VARIANTS = list(itertools.product(["all", "generated"], [True, False]))


@pytest.fixture(params=LABELS.values(), ids=LABELS)
def labels(request):
    return torch.tensor(request.param)


@pytest.fixture(params=WEIGHTS)
def weights(request, labels):
    n = len(labels)
    if request.param == "zero":
        return torch.zeros(n).double()
    if request.param == "ones":
        return torch.ones(n).double()
    if request.param == "one_only":
        return 0.3 * (torch.arange(n) == n // 2).double()
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.1
    return drawn * (torch.arange(n) % 3 != 1) if request.param == "some_zero" else drawn


def slow_mean(pairs, *graph):
    """Sum of w x over sum of w, of (w, x)."""
    total = sum(float(w) for w, _ in pairs)
    if total == 0:
        return sum(tensor.sum() for tensor in graph) * 0
    return sum(float(w) * x for w, x in pairs) / total


def slow_contrastive(v, labels, p, q, weights, focal=True, positives="all", temperature=0.07):
    pairs = []
    for i, y in enumerate(labels.tolist()):
        mates = [k for k, other in enumerate(labels.tolist()) if other == y and k != i]
        rest = [k for k, other in enumerate(labels.tolist()) if other != y]
        positive = [v[k] for k in mates] if positives == "all" else []
        everyone = positive + [v[k] for k in rest]
        if rest and p is not None:
            positive, everyone = [*positive, p[i]], [*everyone, p[i], q[i]]
        if not positive:
            continue
        scores = torch.stack([v[i] @ x for x in everyone]) / temperature
        log_p = [v[i] @ x / temperature - torch.logsumexp(scores, 0) for x in positive]
        terms = [(1 - s.exp()) * s if focal else s for s in log_p]
        pairs.append((weights[i], -sum(terms) / len(positive)))
    return slow_mean(pairs, v) if p is None else slow_mean(pairs, v, p, q)


def slow_cross_entropy(logits, targets, weights):
    """Of soft targets."""
    pairs = []
    for row, target, w in zip(logits, targets, weights, strict=True):
        log_sum = torch.logsumexp(row, 0)
        pairs.append((w, -sum(t * (x - log_sum) for t, x in zip(target, row, strict=True))))
    return slow_mean(pairs, logits)


def one_hot(labels, classes):
    return torch.nn.functional.one_hot(labels, classes).double()


def test_supervised_contrastive(embeddings_for, agree, labels, weights):
    for kind in ("unit", "zero", "duplicated", "identical", "opposite"):
        v = embeddings_for(len(labels), kind)[0]
        loss = supervised_contrastive(v, labels, weights=weights, temperature=0.3)
        expected = slow_contrastive(v, labels, None, None, weights, focal=False, temperature=0.3)
        agree(loss, expected, [v], note=kind)


@pytest.mark.parametrize(("positives", "focal"), VARIANTS)
def test_focal_contrastive(embeddings_for, agree, labels, weights, positives, focal):
    for kind in ("unit", "zero", "duplicated", "identical", "opposite"):
        inputs = embeddings_for(len(labels), kind)
        options = {"positives": positives, "focal": focal}
        loss = focal_contrastive(inputs[0], labels, *inputs[1:], weights=weights, **options)
        expected = slow_contrastive(inputs[0], labels, *inputs[1:], weights, **options)
        agree(loss, expected, inputs, note=kind)


@pytest.mark.parametrize("copies", [1, 2])
def test_mixed_cross_entropy(logits_for, agree, labels, weights, copies):
    n = len(labels)
    for kind, generated in itertools.product(("normal", "small", "zero"), ("all", "some", "none")):
        logits, _, mixed, targets = logits_for(n, 120, kind, rows=copies * n)
        exists = {
            "all": None,
            "some": torch.arange(copies * n) % 2 == 0,
            "none": torch.zeros(copies * n, dtype=torch.bool),
        }[generated]
        loss = mixed_cross_entropy(
            logits, labels, mixed, targets, weights=exists, sample_weights=weights
        )
        carried = torch.cat([weights] * copies)
        carried = carried if exists is None else carried * exists
        expected = slow_cross_entropy(logits, one_hot(labels, 120), weights)
        expected = expected + slow_cross_entropy(mixed, targets, carried)
        agree(loss, expected, [logits, mixed], note=f"{kind} {generated}")


def test_hard_cross_entropy(logits_for, agree, labels, weights):
    logits = logits_for(len(labels), 120)[0]
    loss = hard_cross_entropy(logits, labels, weights)
    agree(loss, slow_cross_entropy(logits, one_hot(labels, 120), weights), [logits])


def every_loss(embeddings_for, logits_for, labels, dtype=torch.float64):
    """Functions of the weights, and their inputs."""
    v, p, q = embeddings_for(len(labels), dtype=dtype)
    logits, _, mixed, targets = logits_for(len(labels), 120)
    logits, mixed = (x.detach().to(dtype).requires_grad_() for x in (logits, mixed))
    targets = targets.to(dtype)
    exists = torch.arange(2 * len(labels)) % 2 == 0
    return [v, p, q, logits, mixed], {
        "supervised": lambda w: supervised_contrastive(v, labels, weights=w),
        "focal": lambda w: focal_contrastive(v, labels, p, q, weights=w),
        "generated": lambda w: focal_contrastive(v, labels, p, q, positives="generated", weights=w),
        "hard": lambda w: hard_cross_entropy(logits, labels, w),
        "mixed": lambda w: mixed_cross_entropy(logits, labels, mixed, targets, sample_weights=w),
        "mixed_some": lambda w: mixed_cross_entropy(
            logits, labels, mixed, targets, weights=exists, sample_weights=w
        ),
    }


def test_ones_are_no_weights(embeddings_for, logits_for, agree, labels):
    inputs, losses = every_loss(embeddings_for, logits_for, labels)
    for name, loss in losses.items():
        agree(loss(torch.ones(len(labels))), loss(None), inputs, rtol=1e-12, note=name)


def test_all_zero_is_an_exact_zero(embeddings_for, logits_for, labels):
    inputs, losses = every_loss(embeddings_for, logits_for, labels, torch.float32)
    for loss in losses.values():
        value = loss(torch.zeros(len(labels)))
        assert value.item() == 0.0
        for gradient in torch.autograd.grad(value, inputs, allow_unused=True):
            assert gradient is None or not gradient.any()


@pytest.mark.parametrize("factor", [1e-300, 1e-40, 1e-3, 7.0, 1e38, 1e300])
def test_a_common_factor_changes_nothing(embeddings_for, logits_for, agree, labels, factor):
    weights = torch.linspace(0.5, 1.0, len(labels), dtype=torch.float64)
    for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        inputs, losses = every_loss(embeddings_for, logits_for, labels, dtype)
        for name, loss in losses.items():
            got, expected = loss(weights * factor), loss(weights)
            torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-6, msg=name)
            for x in torch.autograd.grad(got, inputs, allow_unused=True):
                assert x is None or torch.isfinite(x).all()


@pytest.mark.parametrize("of_losses", DTYPES)
@pytest.mark.parametrize("of_weights", DTYPES)
def test_the_weights_dtype_does_not_count(embeddings_for, logits_for, of_losses, of_weights):
    labels = torch.tensor(LABELS["with_singletons"])
    weights = torch.tensor([0.0, 1.0, 0.5, 2.0, 0.25, 1.5, 4.0])  # exact in every type
    expected = torch.float64 if of_losses == torch.float64 else torch.float32
    for loss in every_loss(embeddings_for, logits_for, labels, of_losses)[1].values():
        value = loss(weights.to(of_weights))
        assert value.dtype == expected
        torch.testing.assert_close(value, loss(weights), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_gradcheck(embeddings_for, logits_for, weight):
    labels = torch.tensor(LABELS["with_singletons"])
    weights = torch.linspace(0.2, 1.0, len(labels), dtype=torch.float64)
    weights[1] = weight
    v, p, q = embeddings_for(len(labels))
    logits, _, mixed, targets = logits_for(len(labels), 5)
    assert torch.autograd.gradcheck(
        lambda *x: focal_contrastive(x[0], labels, *x[1:], temperature=0.5, weights=weights),
        (v, p, q),
    )
    assert torch.autograd.gradcheck(
        lambda x: supervised_contrastive(x, labels, temperature=0.5, weights=weights), (v,)
    )
    assert torch.autograd.gradcheck(
        lambda a, b: mixed_cross_entropy(a, labels, b, targets, sample_weights=weights),
        (logits, mixed),
    )


def test_weight_zero_leaves_out_the_term_but_not_the_contrast(embeddings_for):
    labels = torch.tensor(LABELS["balanced"])
    v = embeddings_for(len(labels))[0]
    weights = torch.ones(len(labels)).double()
    weights[0] = 0.0
    loss = supervised_contrastive(v, labels, weights=weights)
    # Every anchor has a mate, so the mean over all is the n-th part of the sum of all.
    alone = supervised_contrastive(v, labels, weights=1 - weights)
    whole = supervised_contrastive(v, labels)
    torch.testing.assert_close(loss, (8 * whole - alone) / 7, rtol=1e-12, atol=0)
    assert not torch.isclose(loss, supervised_contrastive(v[1:], labels[1:]))
    assert torch.autograd.grad(loss, v)[0][0].any()  # it is still contrasted with


def test_weights_of_anchors_without_a_positive_do_not_count(embeddings_for, agree):
    labels = torch.tensor(LABELS["with_singletons"])  # 0 and 3 have no mate
    v = embeddings_for(len(labels))[0]
    weights = torch.tensor([1e30, 1, 2, 1e30, 1, 3, 1]).double()
    without = weights * (weights < 1e30)
    agree(
        supervised_contrastive(v, labels, weights=weights * 1e-30),
        supervised_contrastive(v, labels, weights=without),
        [v],
        rtol=1e-9,
    )


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (1, 4), (5,)])
def test_weights_of_another_shape_are_refused(embeddings_for, logits_for, shape):
    labels = torch.tensor(LABELS["all_singletons"])
    for loss in every_loss(embeddings_for, logits_for, labels)[1].values():
        with pytest.raises(UserError, match=r"shape \(.*expected \(4,\)"):
            loss(torch.ones(shape))


def test_mixtures_that_belong_to_no_anchor_are_refused(logits_for):
    logits, labels, mixed, targets = logits_for(4, 5, rows=6)
    with pytest.raises(UserError, match=r"shape \(4,\): expected \(6,\)"):
        mixed_cross_entropy(logits, labels, mixed, targets, sample_weights=torch.ones(4))


def test_weighted_mean_by_hand():
    values = torch.tensor([1.0, 2.0, 4.0])
    assert weighted_mean(values, torch.tensor([1.0, 0.0, 3.0])).item() == 3.25
    assert weighted_mean(values, torch.tensor([1.0, 1.0, 3.0]), values < 3).item() == 1.5
