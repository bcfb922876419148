import itertools

import pytest
import torch
import torch.nn.functional as F

from core_tuning.losses import focal_contrastive, mixed_cross_entropy, supervised_contrastive

LABELS = {
    "one": [3],
    "two_same": [0, 0],
    "two_different": [0, 1],
    "one_class": [1, 1, 1, 1],
    "singletons": [4, 0, 3, 1, 2],
    "one_has_no_mate": [0, 0, 1, 0],
    "unsorted_gaps": [7, 3, 7, 100],
    "mixed": [2, 0, 2, 1, 1, 0, 3, 2],
    "many_classes": [119, 0, 64, 119, 63, 20, 64, 19, 119],
}
KINDS = ["unit", "zero", "duplicated", "identical", "opposite", "large", "small"]
VARIANTS = list(itertools.product(["all", "generated"], [True, False]))


def embeddings_for(n, kind="unit", seed=0, dim=4, dtype=torch.float64):
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


def agree(loss, expected, inputs, rtol=1e-10, note=""):
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


def tolerance(kind):
    # Products of 1e6 divided by 0.07 leave nine digits after the subtraction in a softmax.
    return 1e-8 if kind == "large" else 1e-10


# ---------------------------------------------------------------- supervised contrastive


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_supervised_equals_the_loop(reference, name, kind):
    labels = torch.tensor(LABELS[name])
    for temperature in (0.07, 0.5):
        v = embeddings_for(len(labels), kind)[0]
        agree(
            supervised_contrastive(v, labels, temperature=temperature),
            reference.supervised_contrastive(v, labels, temperature),
            [v],
            tolerance(kind),
        )


def test_supervised_random_batches(reference):
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(1, 12, (), generator=generator))
        labels = torch.randint(0, 4, (n,), generator=generator)
        v = embeddings_for(n, seed=seed)[0]
        agree(
            supervised_contrastive(v, labels),
            reference.supervised_contrastive(v, labels),
            [v],
            note=f"seed {seed}",
        )


def test_anchors_without_a_positive_are_out_of_the_mean():
    # Two anchors have each other; the other two have nobody and must not halve the loss.
    v = F.normalize(torch.tensor([[1.0, 0.2], [0.9, 0.4], [-1, 0.1], [0.2, -1]]).double(), dim=1)
    labels = torch.tensor([0, 0, 1, 2])
    similarity = v @ v.T / 0.07
    by_hand = [torch.logsumexp(similarity[i][[k for k in range(4) if k != i]], 0) for i in (0, 1)]
    expected = (sum(by_hand) - 2 * similarity[0, 1]) / 2
    v.requires_grad_()
    torch.testing.assert_close(supervised_contrastive(v, labels), expected)


# ---------------------------------------------------------------- focal contrastive


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(("positives", "focal"), VARIANTS)
def test_focal_equals_the_loop(reference, name, positives, focal):
    labels = torch.tensor(LABELS[name])
    n = len(labels)
    derived = torch.tensor([bool((labels != y).any()) for y in labels])
    some = torch.arange(n) % 3 != 0
    nobody = torch.zeros(n, dtype=torch.bool)
    everybody = torch.ones(n, dtype=torch.bool)
    for kind in KINDS:
        for has_negative in (derived, some, nobody, everybody):
            inputs = embeddings_for(n, kind)
            options = {"focal": focal, "positives": positives, "has_negative": has_negative}
            agree(
                focal_contrastive(inputs[0], labels, *inputs[1:], **options),
                reference.focal_contrastive(inputs[0], labels, *inputs[1:], **options),
                inputs,
                tolerance(kind),
                note=f"{kind} {has_negative.tolist()}",
            )


@pytest.mark.parametrize(("positives", "focal"), VARIANTS)
def test_focal_random_batches(reference, positives, focal):
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        n = int(torch.randint(2, 10, (), generator=generator))
        labels = torch.randint(0, 4, (n,), generator=generator)
        labels[0], labels[1] = 0, 1  # every anchor has another class: None and a mask agree
        inputs = embeddings_for(n, seed=seed)
        temperature = (0.07, 0.3)[seed % 2]
        options = {"focal": focal, "positives": positives}
        expected = reference.focal_contrastive(
            inputs[0], labels, *inputs[1:], temperature, **options
        )
        for has_negative in (None, torch.ones(n, dtype=torch.bool)):
            loss = focal_contrastive(
                inputs[0],
                labels,
                *inputs[1:],
                temperature=temperature,
                has_negative=has_negative,
                **options,
            )
            agree(loss, expected, inputs, note=f"seed {seed}")
            expected = reference.focal_contrastive(
                inputs[0], labels, *inputs[1:], temperature, **options
            )


@pytest.mark.parametrize("name", ["one", "two_same", "one_class"])
@pytest.mark.parametrize(("positives", "focal"), VARIANTS)
def test_one_class_without_a_mask(reference, name, positives, focal):
    # "An anchor with no sample of another class: nothing is generated for it" — the labels
    # say so even where the caller passes no mask.
    labels = torch.tensor(LABELS[name])
    inputs = embeddings_for(len(labels))
    options = {"focal": focal, "positives": positives}
    agree(
        focal_contrastive(inputs[0], labels, *inputs[1:], **options),
        reference.focal_contrastive(inputs[0], labels, *inputs[1:], **options),
        inputs,
    )


@pytest.mark.parametrize("positives", ["all", "generated"])
def test_nothing_positive_is_an_exact_zero_with_a_graph(positives):
    for labels in ([0], [0, 1, 2]):
        n = len(labels)
        inputs = embeddings_for(n)
        loss = focal_contrastive(
            inputs[0],
            torch.tensor(labels),
            *inputs[1:],
            positives=positives,
            has_negative=torch.zeros(n, dtype=torch.bool),
        )
        assert loss.item() == 0.0
        loss.backward()
        for x in inputs:
            assert x.grad is None or torch.equal(x.grad, torch.zeros_like(x))
        assert inputs[0].grad is not None
        v = embeddings_for(n)[0]
        loss = supervised_contrastive(v, torch.tensor(labels))
        assert loss.item() == 0.0
        loss.backward()
        assert torch.equal(v.grad, torch.zeros_like(v))


def test_the_generated_samples_of_other_anchors_are_in_neither_set():
    labels = torch.tensor(LABELS["mixed"])
    for positives in ("all", "generated"):
        for i in range(len(labels)):
            inputs = embeddings_for(len(labels))
            # Only anchor i has generated samples; the rest must get no gradient from any anchor.
            only = torch.arange(len(labels)) == i
            focal_contrastive(
                inputs[0], labels, *inputs[1:], positives=positives, has_negative=only
            ).backward()
            for generated in inputs[1:]:
                assert generated.grad[i].abs().max() > 0
                assert (generated.grad[~only] == 0).all()


def test_the_focal_weight_carries_gradient(reference):
    labels = torch.tensor(LABELS["mixed"])
    inputs = embeddings_for(len(labels))
    # A mild temperature: at 0.07 the weights are near their ends and the difference is small.
    loss = focal_contrastive(inputs[0], labels, *inputs[1:], temperature=1.0)
    held = reference.focal_contrastive(inputs[0], labels, *inputs[1:], 1.0, detach_weight=True)
    torch.testing.assert_close(loss, held)
    for a, b in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(held, inputs), strict=True
    ):
        assert (a - b).abs().max() > 1e-3


def test_permuting_the_batch_changes_nothing():
    labels = torch.tensor(LABELS["mixed"])
    v, p, q = embeddings_for(len(labels))
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        focal_contrastive(v, labels, p, q),
        focal_contrastive(v[order], labels[order], p[order], q[order]),
    )
    torch.testing.assert_close(
        supervised_contrastive(v, labels), supervised_contrastive(v[order], labels[order])
    )


@pytest.mark.parametrize(("positives", "focal"), VARIANTS)
def test_focal_gradcheck(positives, focal):
    labels = torch.tensor([0, 0, 1, 2, 1])
    for has_negative in (None, torch.tensor([True, False, True, True, False])):
        inputs = embeddings_for(len(labels), dim=3)
        assert torch.autograd.gradcheck(
            lambda v, p, q, mask=has_negative: focal_contrastive(
                v, labels, p, q, focal=focal, positives=positives, has_negative=mask
            ),
            inputs,
        )


def test_supervised_gradcheck():
    for labels in ([0, 0, 1, 2, 1], [0, 1, 2], [0]):
        v = embeddings_for(len(labels), dim=3)[0]
        y = torch.tensor(labels)
        assert torch.autograd.gradcheck(lambda x, y=y: supervised_contrastive(x, y), (v,))


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", ["unit", "zero", "identical", "opposite", "small"])
def test_float32_is_finite_everywhere(name, kind):
    labels = torch.tensor(LABELS[name])
    for temperature in (0.07, 0.001):
        inputs = embeddings_for(len(labels), kind, dtype=torch.float32)
        for positives, focal in VARIANTS:
            loss = focal_contrastive(
                inputs[0],
                labels,
                *inputs[1:],
                temperature=temperature,
                focal=focal,
                positives=positives,
            )
            loss = loss + supervised_contrastive(inputs[0], labels, temperature=temperature)
            assert torch.isfinite(loss)
            for grad in torch.autograd.grad(loss, inputs, allow_unused=True):
                assert grad is None or torch.isfinite(grad).all()


# ---------------------------------------------------------------- mixed cross-entropy


def logits_for(n, classes, kind="normal", seed=0, rows=None):
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * n if rows is None else rows
    logits = torch.randn(n + rows, classes, generator=generator, dtype=torch.float64)
    logits = logits * {"normal": 1, "large": 1e4, "small": 1e-9, "zero": 0}[kind]
    labels = torch.randint(0, classes, (n,), generator=generator)
    targets = F.one_hot(torch.randint(0, classes, (2, rows), generator=generator), classes).double()
    lam = torch.rand(rows, 1, generator=generator, dtype=torch.float64)
    mixed = lam * targets[0] + (1 - lam) * targets[1]
    return logits[:n].clone().requires_grad_(), labels, logits[n:].clone().requires_grad_(), mixed


@pytest.mark.parametrize("kind", ["normal", "large", "small", "zero"])
@pytest.mark.parametrize(("n", "classes"), [(1, 2), (2, 5), (6, 3), (4, 120), (3, 1)])
def test_mixed_cross_entropy_equals_the_loop(reference, n, classes, kind):
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


def test_two_means_added_and_not_one():
    # All logits equal: each mean is log K, so the sum is 2 log K whatever n.
    logits, labels, mixed_logits, targets = logits_for(4, 10, "zero")
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets)
    torch.testing.assert_close(loss.exp(), torch.tensor(100.0, dtype=torch.float64))


def test_nothing_generated_leaves_plain_cross_entropy():
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=torch.zeros(8))
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    loss.backward()
    assert mixed_logits.grad is None or (mixed_logits.grad == 0).all()


def test_the_mean_is_over_the_generated_ones_only():
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    keep = torch.tensor([1, 0, 0, 1, 0, 1, 0, 0]).double()
    loss = mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep)
    on = keep.bool()
    alone = mixed_cross_entropy(logits, labels, mixed_logits[on], targets[on])
    torch.testing.assert_close(loss, alone)
    loss.backward()
    assert (mixed_logits.grad[~on] == 0).all()


def test_mixed_cross_entropy_takes_boolean_weights():
    logits, labels, mixed_logits, targets = logits_for(4, 3)
    keep = torch.arange(8) % 3 == 0
    torch.testing.assert_close(
        mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep),
        mixed_cross_entropy(logits, labels, mixed_logits, targets, weights=keep.double()),
    )


def test_mixed_cross_entropy_gradcheck():
    logits, labels, mixed_logits, targets = logits_for(3, 4)
    for weights in (None, (torch.arange(6) % 2).double()):
        assert torch.autograd.gradcheck(
            lambda a, b, w=weights: mixed_cross_entropy(a, labels, b, targets, weights=w),
            (logits, mixed_logits),
        )


# ---------------------------------------------------------------- precision


def every_loss(labels, v, p, q, logits, mixed_logits, targets):
    yield supervised_contrastive(v, labels)
    for positives, focal in VARIANTS:
        yield focal_contrastive(v, labels, p, q, focal=focal, positives=positives)
    yield mixed_cross_entropy(logits, labels, mixed_logits, targets)
    yield mixed_cross_entropy(
        logits, labels, mixed_logits, targets, weights=(torch.arange(len(targets)) % 2).float()
    )


def all_inputs(dtype):
    labels = torch.tensor(LABELS["mixed"])
    v, p, q = (x.detach().to(dtype) for x in embeddings_for(len(labels), dim=16))
    logits, _, mixed_logits, targets = logits_for(len(labels), 5)
    return labels, v, p, q, logits.detach().to(dtype), mixed_logits.detach().to(dtype), targets


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_give_float32_losses(dtype):
    labels, *inputs, targets = all_inputs(dtype)
    wide = [x.float() for x in inputs]
    losses = every_loss(labels, *inputs, targets.float())
    for loss, exact in zip(losses, every_loss(labels, *wide, targets.float()), strict=True):
        assert loss.dtype == torch.float32
        # Nothing but the inputs was rounded.
        torch.testing.assert_close(loss, exact, rtol=1e-6, atol=1e-6)


def test_types_are_kept():
    for dtype in (torch.float32, torch.float64):
        labels, *inputs, targets = all_inputs(dtype)
        for loss in every_loss(labels, *inputs, targets.to(dtype)):
            assert loss.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype):
    labels, *inputs, targets = all_inputs(dtype)
    plain = list(every_loss(labels, *inputs, targets.to(dtype)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = list(every_loss(labels, *inputs, targets.to(dtype)))
    for a, b in zip(plain, cast, strict=True):
        assert a.dtype == b.dtype == dtype
        assert torch.equal(a, b)


def test_autocast_changes_no_gradient():
    labels, *inputs, targets = all_inputs(torch.float32)
    inputs = [x.requires_grad_() for x in inputs]
    plain = sum(every_loss(labels, *inputs, targets.float()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sum(every_loss(labels, *inputs, targets.float()))
    for a, b in zip(
        torch.autograd.grad(plain, inputs), torch.autograd.grad(cast, inputs), strict=True
    ):
        assert torch.equal(a, b)
