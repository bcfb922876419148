"""What the tests of several losses share: inputs, and the comparison with a reference."""

import pytest
import torch
import torch.nn.functional as F


def _embeddings_for(n, kind="unit", seed=0, dim=4, dtype=torch.float64):
    """(originals, hard positives, hard negatives), leaves."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(3 * n, dim, generator=generator, dtype=torch.float64), dim=1)
    if kind == "zero":
        rows = torch.zeros_like(rows)
    elif kind == "duplicated":
        rows = rows[torch.arange(3 * n) // 2]
    elif kind == "identical":
        rows = rows[:1].expand_as(rows)
    elif kind == "opposite":
        rows = (
            rows[:1] * torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(2 * n)[: 3 * n, None]
        )
    elif kind == "large":
        rows = rows * 1e3
    elif kind == "small":
        rows = rows * 1e-8
    return [part.clone().to(dtype).requires_grad_() for part in rows.split(n)]


def _agree(loss, expected, inputs, rtol=1e-10, note=""):
    """Values and gradients, all finite."""
    assert loss.shape == ()
    assert loss.requires_grad
    torch.testing.assert_close(
        loss, expected, rtol=rtol, atol=1e-10, msg=lambda text: f"{note} value: {text}"
    )
    mine = torch.autograd.grad(loss, inputs, allow_unused=True)
    theirs = torch.autograd.grad(expected, inputs, allow_unused=True)
    for position, (a, b, x) in enumerate(zip(mine, theirs, inputs, strict=True)):
        a = torch.zeros_like(x) if a is None else a
        b = torch.zeros_like(x) if b is None else b
        assert torch.isfinite(a).all(), (note, position)
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(
            a,
            b,
            rtol=rtol,
            atol=1e-10 * scale,
            msg=lambda text, p=position: f"{note} gradient {p}: {text}",
        )


def _logits_for(n, classes, kind="normal", seed=0, rows=None):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * n if rows is None else rows
    logits = torch.randn(n + rows, classes, generator=generator, dtype=torch.float64)
    logits = logits * {"normal": 1, "large": 1e4, "small": 1e-9, "zero": 0}[kind]
    labels = torch.randint(0, classes, (n,), generator=generator)
    targets = F.one_hot(torch.randint(0, classes, (2, rows), generator=generator), classes).double()
    lam = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    mixed = lam * targets[0] + (1 - lam) * targets[1]
    return logits[:n].clone().requires_grad_(), labels, logits[n:].clone().requires_grad_(), mixed


@pytest.fixture(scope="session")
def embeddings_for():
    return _embeddings_for


@pytest.fixture(scope="session")
def logits_for():
    return _logits_for


@pytest.fixture(scope="session")
def agree():
    return _agree
