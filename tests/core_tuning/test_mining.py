import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from core_tuning.mining import Mixtures, Pairs, mine_pairs, mix_pairs, sample_lambda

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


# ---------------------------------------------------------------- sample_lambda


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5, 1.0, 2.0, 10.0])
def test_lambda_is_beta_distributed(alpha):
    x = sample_lambda(20000, alpha, generator=torch.Generator().manual_seed(0)).double().numpy()
    assert x.shape == (20000,)
    assert np.isfinite(x).all()
    assert ((x >= 0) & (x <= 1)).all()
    beta = stats.beta(alpha, alpha)
    if alpha >= 0.5:
        assert stats.kstest(x, beta.cdf).pvalue > 1e-3
    # With a small alpha a fifth of the upper half rounds to exactly 1, and float32 ends near
    # 1e-38. The shape is tested where numbers are dense, and the halves are counted.
    lower = x[(x > 1e-30) & (x < 0.5)]
    low, high = beta.cdf(1e-30), beta.cdf(0.5)
    assert stats.kstest(lower, lambda v: (beta.cdf(v) - low) / (high - low)).pvalue > 1e-3
    assert stats.binomtest(int((x < 0.5).sum()), len(x), 0.5).pvalue > 1e-3
    edges = np.unique(np.clip(beta.ppf(np.linspace(0.05, 0.95, 19)), 1e-30, 1 - 1e-6))
    edges = np.concatenate([[-1.0], edges, [2.0]])
    counts, _ = np.histogram(x, edges)
    expected = np.diff(beta.cdf(edges)) * len(x)
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1e-3, 1e-2])
def test_lambda_with_a_tiny_alpha_is_nearly_a_coin(alpha):
    # Both gamma variates underflow here most of the time: their naive ratio is 0/0.
    x = sample_lambda(20000, alpha, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(x).all()
    assert ((x >= 0) & (x <= 1)).all()
    assert stats.binomtest(int((x > 0.5).sum()), 20000, 0.5).pvalue > 1e-3
    inside = stats.beta(alpha, alpha).cdf(0.99) - stats.beta(alpha, alpha).cdf(0.01)
    count = int(((x > 0.01) & (x < 0.99)).sum())
    assert stats.binomtest(count, 20000, inside).pvalue > 1e-3


def test_lambda_with_a_huge_alpha_is_a_half():
    x = sample_lambda(1000, 1e6, generator=torch.Generator().manual_seed(0))
    assert torch.isfinite(x).all()
    assert (x - 0.5).abs().max() < 0.01


@pytest.mark.parametrize(("alpha", "minimum"), [(1.0, 0.8), (0.1, 0.8), (10.0, 0.6)])
def test_clipped_and_not_redrawn(alpha, minimum):
    free = sample_lambda(5000, alpha, generator=torch.Generator().manual_seed(7))
    clipped = sample_lambda(
        5000, alpha, minimum=minimum, generator=torch.Generator().manual_seed(7)
    )
    torch.testing.assert_close(clipped, free.clamp(min=minimum), rtol=0, atol=0)
    # A redraw would leave no mass at the bound.
    at_bound = int((clipped == clipped.new_tensor(minimum)).sum())
    assert stats.binomtest(at_bound, 5000, stats.beta(alpha, alpha).cdf(minimum)).pvalue > 1e-3


def test_lambda_minimum_one_and_sizes():
    assert sample_lambda(9, 1.0, minimum=1.0).tolist() == [1.0] * 9
    assert sample_lambda(1, 0.3).shape == (1,)
    assert not sample_lambda(4, 1.0).requires_grad
    assert sample_lambda(4, 1.0).device.type == "cpu"


def test_lambda_is_reproducible():
    state = torch.get_rng_state()
    a, b, c = (
        sample_lambda(50, 0.5, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert len(a.unique()) > 25  # drawn per anchor, not once a batch
    torch.manual_seed(0)
    first = sample_lambda(50, 0.5)
    torch.manual_seed(0)
    assert torch.equal(first, sample_lambda(50, 0.5))


# ---------------------------------------------------------------- mix_pairs


def mixture_inputs(labels=(0, 1, 2, 0, 1, 3), seed=0, dim=5):
    labels = torch.tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    targets = F.one_hot(labels, 5).double()
    pairs = mine_pairs(features, labels, generator=generator)
    lam_positive, lam_negative = torch.rand(2, len(labels), generator=generator).double()
    return features, targets, pairs, lam_positive, lam_negative


@pytest.mark.parametrize("seed", range(5))
def test_mixtures_equal_the_loop(seed):
    features, targets, pairs, lam_positive, lam_negative = mixture_inputs(seed=seed)
    mixed = mix_pairs(features, targets, pairs, lam_positive, lam_negative)
    assert isinstance(mixed, Mixtures)
    for i in range(len(features)):
        p, q = lam_positive[i], lam_negative[i]
        hp, hn = pairs.hardest_positive[i], pairs.hardest_negative[i]
        rn = pairs.random_negative[i]
        for source, positive, negative in (
            (features, mixed.positive, mixed.negative),
            (targets, mixed.positive_targets, mixed.negative_targets),
        ):
            torch.testing.assert_close(
                positive[i], p * source[hp] + (1 - p) * source[hn], rtol=1e-12, atol=1e-12
            )
            torch.testing.assert_close(
                negative[i], (1 - q) * source[i] + q * source[rn], rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_mixtures_at_the_ends(lam):
    features, targets, pairs, _, _ = mixture_inputs()
    full = torch.full((len(features),), lam, dtype=torch.float64)
    mixed = mix_pairs(features, targets, pairs, full, full)
    positive = pairs.hardest_positive if lam else pairs.hardest_negative
    negative = pairs.random_negative if lam else torch.arange(len(features))
    torch.testing.assert_close(mixed.positive, features[positive], rtol=0, atol=1e-14)
    torch.testing.assert_close(mixed.positive_targets, targets[positive], rtol=0, atol=0)
    torch.testing.assert_close(mixed.negative, features[negative], rtol=0, atol=1e-14)
    torch.testing.assert_close(mixed.negative_targets, targets[negative], rtol=0, atol=0)


def test_gradient_reaches_both_ends_of_each_mixture():
    features, targets, pairs, lam_positive, lam_negative = mixture_inputs()
    features.requires_grad_()
    for i in range(len(features)):
        mixed = mix_pairs(features, targets, pairs, lam_positive, lam_negative)
        p, q = lam_positive[i], lam_negative[i]
        hp, hn = int(pairs.hardest_positive[i]), int(pairs.hardest_negative[i])
        expected = torch.zeros_like(features)
        expected[hp] += p
        expected[hn] += 1 - p
        (grad,) = torch.autograd.grad(mixed.positive[i].sum(), features, retain_graph=True)
        torch.testing.assert_close(grad, expected)
        expected = torch.zeros_like(features)
        expected[i] += 1 - q
        expected[int(pairs.random_negative[i])] += q
        (grad,) = torch.autograd.grad(mixed.negative[i].sum(), features)
        torch.testing.assert_close(grad, expected)


def test_mix_pairs_gradcheck():
    features, targets, pairs, lam_positive, lam_negative = mixture_inputs()
    assert torch.autograd.gradcheck(
        lambda z: tuple(mix_pairs(z, targets, pairs, lam_positive, lam_negative)[::2]),
        (features.requires_grad_(),),
    )


@pytest.mark.parametrize("labels", [(3,), (1, 1, 1)])
def test_nothing_to_generate_is_still_finite(labels):
    features, targets, pairs, lam_positive, lam_negative = mixture_inputs(labels)
    features.requires_grad_()
    mixed = mix_pairs(features, targets, pairs, lam_positive, lam_negative)
    for field in mixed:
        assert torch.isfinite(field).all()
        assert field.shape[0] == len(labels)
    (mixed.positive.sum() + mixed.negative.sum()).backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_mixtures_of_low_precision_features(dtype):
    features, targets, pairs, lam_positive, lam_negative = mixture_inputs()
    exact = mix_pairs(features, targets, pairs, lam_positive, lam_negative)
    mixed = mix_pairs(
        features.to(dtype), targets.float(), pairs, lam_positive.float(), lam_negative.float()
    )
    torch.testing.assert_close(mixed.positive.double(), exact.positive, rtol=0.02, atol=0.03)
    torch.testing.assert_close(mixed.negative.double(), exact.negative, rtol=0.02, atol=0.03)
    # The label of a mixture keeps its precision whatever the features' type.
    torch.testing.assert_close(
        mixed.positive_targets.double(), exact.positive_targets, rtol=1e-6, atol=1e-6
    )
    torch.testing.assert_close(mixed.negative_targets.double().sum(1), torch.ones(6).double())


def test_float64_features_stay_float64_with_the_sampled_lambda():
    features, targets, pairs, _, _ = mixture_inputs()
    lam = sample_lambda(len(features), 1.0)
    mixed = mix_pairs(features, targets, pairs, lam, lam)
    assert mixed.positive.dtype == mixed.negative.dtype == torch.float64
