import itertools

import pytest
import torch

from core_tuning.losses import focal_contrastive, mixed_cross_entropy, supervised_contrastive

VARIANTS = list(itertools.product(["all", "generated"], [True, False]))


def every_loss(labels, v, p, q, logits, mixed_logits, targets):
    yield supervised_contrastive(v, labels)
    for positives, focal in VARIANTS:
        yield focal_contrastive(v, labels, p, q, focal=focal, positives=positives)
    yield mixed_cross_entropy(logits, labels, mixed_logits, targets)
    yield mixed_cross_entropy(
        logits, labels, mixed_logits, targets, weights=(torch.arange(len(targets)) % 2).float()
    )


@pytest.fixture
def all_inputs(embeddings_for, logits_for):
    def inputs_of(dtype):
        labels = torch.tensor([2, 0, 2, 1, 1, 0, 3, 2])
        v, p, q = (x.detach().to(dtype) for x in embeddings_for(len(labels), dim=16))
        logits, _, mixed_logits, targets = logits_for(len(labels), 5)
        return labels, v, p, q, logits.detach().to(dtype), mixed_logits.detach().to(dtype), targets

    return inputs_of


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_give_float32_losses(all_inputs, dtype):
    labels, *inputs, targets = all_inputs(dtype)
    wide = [x.float() for x in inputs]
    losses = every_loss(labels, *inputs, targets.float())
    for loss, exact in zip(losses, every_loss(labels, *wide, targets.float()), strict=True):
        assert loss.dtype == torch.float32
        # Nothing but the inputs was rounded.
        torch.testing.assert_close(loss, exact, rtol=1e-6, atol=1e-6)


def test_types_are_kept(all_inputs):
    for dtype in (torch.float32, torch.float64):
        labels, *inputs, targets = all_inputs(dtype)
        for loss in every_loss(labels, *inputs, targets.to(dtype)):
            assert loss.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(all_inputs, dtype):
    labels, *inputs, targets = all_inputs(dtype)
    plain = list(every_loss(labels, *inputs, targets.to(dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = list(every_loss(labels, *inputs, targets.to(dtype)))
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a, b)


def test_autocast_changes_no_gradient(all_inputs):
    labels, *inputs, targets = all_inputs(torch.float32)
    inputs = [x.requires_grad_() for x in inputs]
    plain = sum(every_loss(labels, *inputs, targets.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sum(every_loss(labels, *inputs, targets.float()))
    for a, b in zip(
        torch.autograd.grad(plain, inputs), torch.autograd.grad(cast, inputs), strict=True
    ):
        assert torch.equal(a, b)
