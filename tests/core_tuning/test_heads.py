import copy

import pytest
import torch
from torch import nn

from core_tuning.errors import UserError
from core_tuning.heads import ProjectionHead


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_layers(depth):
    torch.manual_seed(0)
    head = ProjectionHead(12, 7, depth).double()
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    shapes = [(m.in_features, m.out_features) for m in linear]
    assert shapes == [(12, 12)] * (depth - 1) + [(12, 7)]
    assert not any("Norm" in type(m).__name__ for m in head.modules())
    assert sum(p.numel() for p in head.parameters()) == (depth - 1) * (12 * 12 + 12) + 12 * 7 + 7
    assert not list(head.buffers())
    x = torch.randn(9, 12, dtype=torch.float64)
    expected = x
    for position, layer in enumerate(linear):
        expected = expected @ layer.weight.T + layer.bias
        if position < depth - 1:
            expected = expected.clamp(min=0)
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), expected, rtol=1e-12, atol=1e-12)


def test_defaults_are_the_papers():
    head = ProjectionHead(16)
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(16, 16), (16, 256)]
    assert head(torch.randn(3, 16)).shape == (3, 256)


@pytest.mark.parametrize("depth", [0, 6, -1])
def test_depth_outside_one_to_five(depth):
    with pytest.raises(UserError, match=str(depth)):
        ProjectionHead(8, 4, depth)


@pytest.mark.parametrize("n", [1, 5])
def test_rows_are_independent_and_train_equals_eval(n):
    torch.manual_seed(0)
    head = ProjectionHead(8, 4).double()
    x = torch.randn(n, 8, dtype=torch.float64)
    one_by_one = torch.cat([head.eval()(row[None]) for row in x])
    torch.testing.assert_close(head.train()(x), one_by_one, rtol=1e-12, atol=1e-12)


def test_a_zero_projection_is_finite_with_finite_gradients():
    head = ProjectionHead(8, 4)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    x = torch.zeros(3, 8, requires_grad=True)
    out = head(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def test_unit_norm_in_low_precision():
    torch.manual_seed(0)
    head = ProjectionHead(32, 64)
    x = torch.randn(6, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = head(x)
    torch.testing.assert_close(out.float().norm(dim=1), torch.ones(6), rtol=0, atol=1e-2)
    torch.testing.assert_close(out.float(), head(x), rtol=0, atol=3e-2)


def test_state_dict_and_deepcopy():
    head, other = ProjectionHead(8, 4, 3), ProjectionHead(8, 4, 3)
    x = torch.randn(2, 8)
    assert not torch.equal(head(x), other(x))
    other.load_state_dict(head.state_dict())
    assert torch.equal(head(x), other(x))
    assert torch.equal(head(x), copy.deepcopy(head)(x))
