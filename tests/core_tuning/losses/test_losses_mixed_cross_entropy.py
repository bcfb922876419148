import pytest
import torch
import torch.nn.functional as F

from core_tuning.losses import mixed_cross_entropy


@pytest.mark.parametrize("kind", ["normal", "large", "small", "zero"])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (2, 5), (6, 3), (4, 120), (3, 1)])
def test_mixed_cross_entropy_equals_the_loop(logits_for, agree, reference, n, classes, kind):
    logits, labels, mixed_logits, targets = logits_for(n, classes, kind)
    all_on = torch.ones(2 * n, dtype=torch.float64)
    some = (torch.arange(2 * n) % 2).double()
    for weights in (None, all_on, some, all_on * 0):
        agree(
            mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=weights),
            reference.mixed_cross_entropy(logits, labels, mixed_logits, targets, weights),
            [logits, mixed_logits],
            note=f"{weights}",
        )


def test_two_means_added_and_not_one(logits_for):
    # All logits equal: each mean is log K, so the sum is 2 log K whatever n.
    logits, labels, mixed_logits, targets = logits_for(4, 10, "zero")
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets)
    torch.testing.assert_close(loss.exp(), torch.tensor(100.0, dtype=torch.float64))


def test_nothing_generated_leaves_plain_cross_entropy(logits_for):
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=torch.zeros(8))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    loss.backward()
    assert mixed_logits.grad is None or (mixed_logits.grad == 0).all()


def test_the_mean_is_over_the_generated_ones_only(logits_for):
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    keep = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0]).double()
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep)
    on = keep.bool()
    alone = mixed_cross_entropy(logits, labels, mixed_logits[on], targets[on])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert (mixed_logits.grad[~on] == 0).all()


def test_mixed_cross_entropy_takes_boolean_weights(logits_for):
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    keep = torch.arange(8) % 3 == 0
    torch.testing.assert_close(
        mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep),
        mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep.double()),
    )


def test_mixed_cross_entropy_gradcheck(logits_for):
    logits, labels, mixed_logits, targets = logits_for(3, 4)
    for weights in (None, (torch.arange(6) % 2).double()):
        assert torch.autograd.gradcheck(
            lambda a, b, w=weights: mixed_cross_entropy(a, labels, b, targets, weights=w),
            (logits, mixed_logits),
        )
