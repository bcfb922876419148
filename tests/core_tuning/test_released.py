import itertools

import pytest
import torch
import torch.nn.functional as F

from core_tuning.released import (
    released_contrastive,
    released_cross_entropy,
    released_mixtures,
    released_pairs,
)


def random_features(n, seed=0, dim=4, relu=False):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    # Shifted, not zero: two features of one direction would tie, and rounding would decide.
    return features.relu() + 0.01 * features.abs() if relu else features


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(
    "labels", [[0], [0, 0], [1, 0], [2, 2, 2, 2], [3, 1, 0, 2], [7, 3, 7, 100, 3, 7, 0]]
)
def test_pairs_equal_the_loop(reference, labels, relu):
    for seed in range(10):
        features = random_features(len(labels), seed, relu=relu)
        positive, negative = released_pairs(features, torch.tensor(labels))
        expected = reference.released_pairs(features, labels)
        assert positive.tolist() == expected[0]
        assert negative.tolist() == expected[1]


def test_pairs_of_random_batches(reference):
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(1, 20, (), generator=generator))
        labels = torch.randint(0, 4, (n,), generator=generator)
        features = random_features(n, seed).requires_grad_()
        positive, negative = released_pairs(features, labels)
        expected = reference.released_pairs(features, labels)
        assert positive.tolist() == expected[0]
        assert negative.tolist() == expected[1]
        assert not positive.requires_grad
        assert not negative.requires_grad


def test_pooled_features_almost_always_choose_the_anchor_itself():
    # The table: about 90% of anchors use themselves, the rest a wrong class (n=64, K=10).
    themselves = wrong_class = 0
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 10, (64,), generator=generator)
        features = random_features(64, seed, dim=32, relu=True)
        positive, negative = released_pairs(features, labels)
        itself = positive == torch.arange(64)
        themselves += int(itself.sum())
        wrong_class += int((labels[positive] != labels)[~itself].sum())
        assert (labels[negative] != labels).all()  # right while cosines are positive
    assert 0.85 < themselves / 3200 < 0.95
    assert themselves + wrong_class == 3200  # the hardest positive is never chosen


def test_a_negative_cosine_lets_the_hardest_positive_through():
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.1], [0.1, 1.0]]).double()
    positive, negative = released_pairs(features, torch.tensor([0, 1, 0, 1]))
    assert positive.tolist() == [2, 1, 2, 3]  # 2's own hardest positive is index 0: replaced
    assert negative[2] == 1
    # All other-class cosines negative: the argmax falls on the first masked zero, itself a mate.
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0]]).double()
    _, negative = released_pairs(features, torch.tensor([0, 0, 1]))
    assert negative.tolist() == [0, 0, 2]


def mixture_inputs(n=6, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = random_features(n, seed).requires_grad_()
    labels = torch.randint(0, classes, (n,), generator=generator)
    targets = F.one_hot(labels, classes).double()
    partners = torch.randperm(n, generator=generator)
    positive, negative = torch.randint(0, n, (2, n), generator=generator)
    lam_negative = torch.rand(n, generator=generator, dtype=torch.float64).clamp(min=0.8)
    lam_positive = torch.rand(n, generator=generator, dtype=torch.float64)
    return features, targets, partners, positive, negative, lam_negative, lam_positive


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [1, 2, 6])
def test_mixtures_equal_the_loop(n, seed):
    features, targets, partners, hp, hn, lam_negative, lam_positive = mixture_inputs(n, seed=seed)
    rows, soft = released_mixtures(features, targets, partners, hp, hn, lam_negative, lam_positive)
    for source, mixed in ((features, rows), (targets, soft)):
        assert mixed.shape == (3 * n, source.shape[1])
        for i in range(n):
            a, b = lam_negative[i], lam_positive[i]
            expected = torch.stack(
                [
                    source[i],
                    (1 - a) * source[i] + a * source[partners[i]],
                    b * source[hp[i]] + (1 - b) * source[hn[i]],
                ]
            )
            torch.testing.assert_close(mixed[i::n], expected, rtol=1e-12, atol=1e-12)


def test_originals_are_detached_and_mixtures_are_not():
    inputs = mixture_inputs()
    features, n = inputs[0], len(inputs[0])
    rows, soft = released_mixtures(*inputs)
    assert not soft.requires_grad
    (grad,) = torch.autograd.grad(rows[:n].sum(), features, retain_graph=True)
    assert (grad == 0).all()
    _, _, partners, hp, hn, lam_negative, lam_positive = inputs
    weight = random_features(3 * n, 5)
    (grad,) = torch.autograd.grad((weight * rows).sum(), features)
    expected = torch.zeros_like(features)
    for i in range(n):
        expected[i] += (1 - lam_negative[i]) * weight[n + i]
        expected[partners[i]] += lam_negative[i] * weight[n + i]
        expected[hp[i]] += lam_positive[i] * weight[2 * n + i]
        expected[hn[i]] += (1 - lam_positive[i]) * weight[2 * n + i]
    torch.testing.assert_close(grad, expected)


def soft_targets(rows, classes, seed=0, distinct=3):
    """Rows drawn from a few soft labels, so that positives exist."""
    generator = torch.Generator().manual_seed(seed)
    ends = F.one_hot(torch.randint(0, classes, (2, distinct), generator=generator), classes)
    lam = torch.rand(distinct, 1, generator=generator, dtype=torch.float64)
    pool = lam * ends[0] + (1 - lam) * ends[1]
    return pool[torch.randint(0, distinct, (rows,), generator=generator)]


def unit(rows, seed=0, dim=5):
    return F.normalize(random_features(rows, seed, dim), dim=1).requires_grad_()


@pytest.mark.parametrize("classes", [1, 3, 25, 120])
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
def test_contrastive_equals_the_loop(reference, rows, classes):
    for seed, temperature in itertools.product(range(4), (0.07, 0.4)):
        targets = soft_targets(rows, classes, seed)
        v = unit(rows, seed)
        loss = released_contrastive(v, targets, temperature=temperature)
        expected = reference.released_contrastive(v, targets, temperature)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-12)
        (mine,) = torch.autograd.grad(loss, v)
        (theirs,) = torch.autograd.grad(expected, v)
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-10)


def test_contrastive_as_composed_by_the_release(reference):
    for seed in range(5):
        inputs = mixture_inputs(7, 3, seed)
        rows, soft = released_mixtures(*inputs)
        v = F.normalize(rows, dim=1)
        loss = released_contrastive(v, soft)
        torch.testing.assert_close(
            loss, reference.released_contrastive(v, soft), rtol=1e-6, atol=1e-12
        )


def test_the_mean_over_columns_makes_it_small(reference):
    # The table: about 30 times smaller than 1/|P_i| at n=64, K=10.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (64,), generator=generator)
    v = unit(64, dim=16)
    loss = released_contrastive(v, F.one_hot(labels, 10).double())
    # One-hot targets alone: the equations' loss with the sums divided by 64 and not by |P_i|.
    equations = reference.focal_contrastive(
        v, labels, v, v, has_negative=torch.zeros(64, dtype=torch.bool)
    )
    assert 6 < equations / loss < 16  # the mixtures' columns are another factor of three


def one_pair_is_positive(first, second):
    """Whether two soft labels are the same class; a third row is of a class of its own."""
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    third = torch.full_like(first, 1 / len(first))
    return bool(released_contrastive(unit(3), torch.stack([first, second, third])) > 0)


def hot(index, classes=120, dtype=torch.float64):
    return F.one_hot(torch.tensor(index), classes).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_class_is_an_exact_soft_label(dtype):
    lam = torch.tensor(0.8, dtype=dtype)
    a, b, c = (hot(k, dtype=dtype) for k in (3, 70, 110))
    assert one_pair_is_positive(a, a.clone())
    # Both clipped at the bound and of the same two classes: the same class.
    assert one_pair_is_positive((1 - lam) * a + lam * b, (1 - lam) * a + lam * b)
    assert not one_pair_is_positive((1 - lam) * a + lam * b, lam * a + (1 - lam) * b)
    assert not one_pair_is_positive((1 - lam) * a + lam * b, (1 - lam) * a + lam * c)
    nearly = torch.nextafter(lam, torch.ones_like(lam))
    assert not one_pair_is_positive((1 - lam) * a + lam * b, (1 - nearly) * a + nearly * b)
    # A partner of the same class gives the original's own label back.
    assert one_pair_is_positive(a, (1 - lam) * a + lam * a)


@pytest.mark.parametrize(("a", "b"), [(64, 119), (19, 20), (63, 64), (0, 119), (70, 80), (18, 83)])
def test_the_labels_hash_does_not_wrap(a, b):
    # 10^k in 64 bits is 0 from k = 64 on: the release takes these for one class.
    assert not one_pair_is_positive(hot(a), hot(b))
    assert one_pair_is_positive(hot(b), hot(b))


@pytest.mark.parametrize("classes", [3, 120])
def test_clipped_mixtures_share_a_class_end_to_end(reference, classes):
    # Labels a, a, b, b; every negative is 0.8 of the other class: two mixed classes of two.
    labels = torch.tensor([0, 0, classes - 1, classes - 1])
    features, targets = random_features(4), F.one_hot(labels, classes).double()
    lam = torch.full((4,), 0.8, dtype=torch.float64)
    hp, hn = torch.tensor([1, 0, 3, 2]), torch.tensor([2, 3, 0, 1])
    distinct = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    rows, soft = released_mixtures(
        features, targets, torch.tensor([2, 3, 0, 1]), hp, hn, lam, distinct
    )
    assert len({tuple(row) for row in soft.tolist()}) == 2 + 2 + 4
    v = F.normalize(rows, dim=1)
    torch.testing.assert_close(
        released_contrastive(v, soft), reference.released_contrastive(v, soft), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_no_positive_anywhere_is_zero_with_a_graph(rows):
    v = unit(rows)
    loss = released_contrastive(v, torch.eye(rows, dtype=torch.float64))
    assert loss.shape == ()
    assert loss.item() == 0.0
    loss.backward()
    assert torch.equal(v.grad, torch.zeros_like(v))


@pytest.mark.parametrize("kind", ["zero", "identical", "large"])
def test_degenerate_embeddings_are_finite(reference, kind):
    v = unit(6).detach()
    v = {"zero": v * 0, "identical": v[:1].expand_as(v).clone(), "large": v * 1e3}[kind]
    v.requires_grad_()
    targets = soft_targets(6, 4)
    loss = released_contrastive(v, targets)
    expected = reference.released_contrastive(v, targets)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)
    (grad,) = torch.autograd.grad(loss, v)
    assert torch.isfinite(grad).all()


def test_contrastive_gradcheck():
    for targets in (soft_targets(5, 3), torch.eye(5, dtype=torch.float64)):
        assert torch.autograd.gradcheck(
            lambda v, t=targets: released_contrastive(v, t), (unit(5, dim=3),)
        )


@pytest.mark.parametrize(("rows", "classes"), [(3, 2), (9, 4), (6, 120)])
def test_cross_entropy_is_one_mean(reference, rows, classes):
    logits = random_features(rows, dim=classes).requires_grad_()
    targets = soft_targets(rows, classes)
    loss = released_cross_entropy(logits, targets)
    torch.testing.assert_close(loss, reference.released_cross_entropy(logits, targets))
    assert torch.autograd.gradcheck(lambda a: released_cross_entropy(a, targets), (logits,))
    uniform = released_cross_entropy(torch.zeros(rows, classes).double(), targets)
    torch.testing.assert_close(uniform.exp(), torch.tensor(float(classes)).double())


def test_precision():
    targets = soft_targets(9, 4).float()
    v, logits = unit(9).detach(), random_features(9)

    def losses(dtype):
        return [
            released_contrastive(v.to(dtype), targets),
            released_cross_entropy(logits.to(dtype), targets),
        ]

    plain = losses(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = losses(torch.float32)
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype == torch.float32
        assert torch.equal(a, b)
    for low in (torch.bfloat16, torch.float16):
        assert all(loss.dtype == torch.float32 for loss in losses(low))
    assert all(loss.dtype == torch.float64 for loss in losses(torch.float64))
