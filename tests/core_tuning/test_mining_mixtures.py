import pytest
import torch
import torch.nn.functional as F

from core_tuning.mining import (
    Mixtures,
    mine_pairs,
    mix_pairs,
    sample_lambda,
)


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
