import numpy as np
import pytest
import torch
from scipy import stats

from core_tuning.mining import sample_lambda


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
