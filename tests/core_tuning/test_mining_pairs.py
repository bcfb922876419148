import numpy as np
import pytest
import torch
from scipy import stats

from core_tuning.mining import Pairs, mine_pairs

LABELS = {
    "two": [0, 1],
    "two_same": [0, 0],
    "one": [5],
    "one_class": [2, 2, 2, 2, 2],
    "singletons": [4, 0, 3, 1, 2],
    "some_singletons": [1, 0, 0, 2, 0, 3],
    "unsorted_gaps": [7, 3, 7, 100],
    "balanced": [0, 1, 2, 0, 1, 2, 0, 1, 2],
}


def features_for(labels, seed=0, dim=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)


def check_pairs(reference, features, labels, pairs, tolerance=1e-12):
    """The rules of the specification, which leave a tie to the implementation."""
    n = len(labels)
    values = features.detach().double()
    for field in pairs:
        assert field.shape == (n,)
    for i in range(n):
        mates, rest = reference.others(labels, i)
        positive, negative, random_negative = (int(field[i]) for field in pairs[:3])
        assert bool(pairs.has_negative[i]) == bool(rest)
        for index in (positive, negative, random_negative):
            assert 0 <= index < n  # must be usable as an index even where nothing is generated
        if mates:
            assert positive in mates
            lowest = min(reference.cosine(values[i], values[k]) for k in mates)
            assert reference.cosine(values[i], values[positive]) <= lowest + tolerance
        else:
            assert positive == i
        if rest:
            assert negative in rest
            assert random_negative in rest
            highest = max(reference.cosine(values[i], values[k]) for k in rest)
            assert reference.cosine(values[i], values[negative]) >= highest - tolerance


@pytest.mark.parametrize("name", LABELS)
def test_pairs_equal_the_loop(reference, name):
    labels = LABELS[name]
    for seed in range(10):
        features = features_for(labels, seed)
        pairs = mine_pairs(features, torch.tensor(labels))
        assert isinstance(pairs, Pairs)
        positives, negatives = reference.hardest(features, labels)
        assert pairs.hardest_positive.tolist() == positives
        if negatives[0] is not None:
            assert pairs.hardest_negative.tolist() == negatives
        check_pairs(reference, features, labels, pairs)


def test_many_random_batches(reference):
    rng = np.random.default_rng(0)
    for seed in range(60):
        n, classes = int(rng.integers(1, 14)), int(rng.integers(1, 6))
        labels = rng.integers(0, classes, n).tolist()
        features = features_for(labels, seed, dim=3)
        check_pairs(reference, features, labels, mine_pairs(features, torch.tensor(labels)))


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", ["zero", "identical", "opposite", "duplicated", "one_zero_row"])
def test_degenerate_features(reference, name, kind):
    labels = LABELS[name]
    features = features_for(labels)
    if kind == "zero":
        features = torch.zeros_like(features)
    elif kind == "identical":
        features = features[:1].expand_as(features).clone()
    elif kind == "opposite":
        # Classes of alternating direction: every cosine across them is -1, so a mask that
        # writes zeros instead of excluding would win against the true hardest negative.
        sign = torch.tensor([1.0 if y % 2 else -1.0 for y in labels], dtype=torch.float64)
        features = features[:1] * sign[:, None]
    elif kind == "duplicated":
        features = features[torch.arange(len(labels)) // 2]
    else:
        features[0] = 0
    check_pairs(reference, features, labels, mine_pairs(features, torch.tensor(labels)))


def test_cosine_and_not_the_inner_product(reference):
    labels = LABELS["balanced"]
    features = features_for(labels)
    scale = 10 ** torch.linspace(-5, 5, len(labels), dtype=torch.float64)[:, None]
    plain = mine_pairs(features, torch.tensor(labels))
    scaled = mine_pairs(features * scale, torch.tensor(labels))
    assert torch.equal(plain.hardest_positive, scaled.hardest_positive)
    assert torch.equal(plain.hardest_negative, scaled.hardest_negative)
    check_pairs(reference, features * scale, labels, scaled)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_extreme_magnitudes(reference, scale):
    # The cosine does not depend on the magnitude. Norms that leave float32's range when squared
    # (above 1e19) are no features of a network that still trains, and are not provided for.
    labels = LABELS["balanced"]
    features = (features_for(labels).float() * scale).requires_grad_()
    assert torch.isfinite(features).all()
    positives, negatives = reference.hardest(features, labels)
    pairs = mine_pairs(features, torch.tensor(labels))
    assert pairs.hardest_positive.tolist() == positives
    assert pairs.hardest_negative.tolist() == negatives


def test_permuting_the_batch_permutes_the_pairs():
    labels = torch.tensor([3, 1, 3, 0, 1, 0, 9, 3])
    features = features_for(labels)
    plain = mine_pairs(features, labels)
    for seed in range(5):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
        permuted = mine_pairs(features[order], labels[order])
        assert torch.equal(order[permuted.hardest_positive], plain.hardest_positive[order])
        assert torch.equal(order[permuted.hardest_negative], plain.hardest_negative[order])


def test_renaming_the_classes_changes_nothing():
    features = features_for(range(8))
    small = torch.tensor([2, 0, 2, 1, 1, 0, 3, 2])
    large = torch.tensor([7, 10**12, 7, 100, 100, 10**12, 3, 7])
    a = mine_pairs(features, small, generator=torch.Generator().manual_seed(1))
    b = mine_pairs(features, large, generator=torch.Generator().manual_seed(1))
    # Which random negative a seed gives may depend on the classes' order; the rest may not.
    assert torch.equal(a.hardest_positive, b.hardest_positive)
    assert torch.equal(a.hardest_negative, b.hardest_negative)
    assert torch.equal(a.has_negative, b.has_negative)
    assert (large[b.random_negative] != large).all()


def test_no_gradient_and_inputs_untouched():
    labels = torch.tensor(LABELS["balanced"])
    features = features_for(labels).requires_grad_()
    before = features.detach().clone()
    pairs = mine_pairs(features, labels)
    for field in pairs:
        assert not field.requires_grad
        assert field.grad_fn is None
        assert not field.is_floating_point()
    assert pairs.has_negative.dtype == torch.bool
    assert torch.equal(features.detach(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_features(reference, dtype):
    labels = LABELS["balanced"]
    # 1e4 squared is beyond float16: the similarities must not be computed in it.
    features = (features_for(labels) * 1e4).to(dtype)
    pairs = mine_pairs(features, torch.tensor(labels))
    positives, negatives = reference.hardest(features, labels)
    assert pairs.hardest_positive.tolist() == positives
    assert pairs.hardest_negative.tolist() == negatives


def test_autocast_does_not_change_the_pairs():
    # 200 samples in 4 dimensions: cosines rounded to bfloat16 would tie and choose others.
    labels = torch.arange(200) % 5
    features = features_for(labels, dim=4).float()
    plain = mine_pairs(features, labels, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = mine_pairs(features, labels, generator=torch.Generator().manual_seed(0))
    for left, right in zip(plain, cast, strict=True):
        assert torch.equal(left, right)


def test_random_negatives_are_uniform_and_independent(reference):
    labels = [0, 0, 0, 0, 1, 1, 2, 0]
    features = features_for(labels)
    generator = torch.Generator().manual_seed(0)
    target = torch.tensor(labels)
    drawn = torch.stack(
        [mine_pairs(features, target, generator=generator).random_negative for _ in range(3000)]
    ).numpy()
    for i in range(len(labels)):
        _, rest = reference.others(labels, i)
        counts = [int((drawn[:, i] == k).sum()) for k in rest]
        assert sum(counts) == len(drawn)  # never a sample of the same class
        assert stats.chisquare(counts).pvalue > 1e-4
    # Anchors 0 and 1 choose among the same three: all nine combinations are equally likely.
    joint = [
        int(((drawn[:, 0] == a) & (drawn[:, 1] == b)).sum()) for a in (4, 5, 6) for b in (4, 5, 6)
    ]
    assert stats.chisquare(joint).pvalue > 1e-4


def test_random_negatives_are_uniform_in_a_large_batch():
    # One draw of a batch of 4000: rare classes get no more and no less than their share.
    labels = torch.cat([torch.zeros(2000), torch.ones(1500), torch.full((500,), 7.0)]).long()
    features = features_for(labels, dim=2).float()
    pairs = mine_pairs(features, labels, generator=torch.Generator().manual_seed(0))
    chosen = labels[pairs.random_negative]
    assert not (chosen == labels).any()
    from_first = chosen[labels == 0]
    counts = [int((from_first == 1).sum()), int((from_first == 7).sum())]
    assert stats.chisquare(counts, [1500, 500]).pvalue > 1e-4


def test_generator_decides_and_leaves_the_global_one_alone():
    labels = torch.arange(40) % 3
    features = features_for(labels)
    state = torch.get_rng_state()
    a = mine_pairs(features, labels, generator=torch.Generator().manual_seed(3))
    b = mine_pairs(features, labels, generator=torch.Generator().manual_seed(3))
    c = mine_pairs(features, labels, generator=torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a.random_negative, b.random_negative)
    assert not torch.equal(a.random_negative, c.random_negative)
    torch.manual_seed(0)
    first = mine_pairs(features, labels).random_negative
    torch.manual_seed(0)
    assert torch.equal(first, mine_pairs(features, labels).random_negative)
