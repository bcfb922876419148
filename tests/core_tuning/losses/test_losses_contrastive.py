import itertools

import pytest
import torch
import torch.nn.functional as F

from core_tuning.losses import focal_contrastive, supervised_contrastive

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


def tolerance(kind):
    # Products of 1e6 divided by 0.07 leave nine digits after the subtraction in a softmax.
    return 1e-8 if kind == "large" else 1e-10


# ---------------------------------------------------------------- supervised contrastive


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_supervised_equals_the_loop(embeddings_for, agree, reference, name, kind):
    labels = torch.tensor(LABELS[name])
    for temperature in (0.07, 0.5):
        v = embeddings_for(len(labels), kind)[0]
        agree(
            supervised_contrastive(v, labels, temperature=temperature),
            reference.supervised_contrastive(v, labels, temperature),
            [v],
            tolerance(kind),
        )


def test_supervised_random_batches(embeddings_for, agree, reference):
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
def test_focal_equals_the_loop(embeddings_for, agree, reference, name, positives, focal):
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
def test_focal_random_batches(embeddings_for, agree, reference, positives, focal):
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
def test_one_class_without_a_mask(embeddings_for, agree, reference, name, positives, focal):
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
def test_nothing_positive_is_an_exact_zero_with_a_graph(embeddings_for, positives):
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


def test_the_generated_samples_of_other_anchors_are_in_neither_set(embeddings_for):
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


def test_the_focal_weight_carries_gradient(embeddings_for, reference):
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


def test_permuting_the_batch_changes_nothing(embeddings_for):
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
def test_focal_gradcheck(embeddings_for, positives, focal):
    labels = torch.tensor([0, 0, 1, 2, 1])
    for has_negative in (None, torch.tensor([True, False, True, True, False])):
        inputs = embeddings_for(len(labels), dim=3)
        assert torch.autograd.gradcheck(
            lambda v, p, q, mask=has_negative: focal_contrastive(
                v, labels, p, q, focal=focal, positives=positives, has_negative=mask
            ),
            inputs,
        )


def test_supervised_gradcheck(embeddings_for):
    for labels in ([0, 0, 1, 2, 1], [0, 1, 2], [0]):
        v = embeddings_for(len(labels), dim=3)[0]
        y = torch.tensor(labels)
        assert torch.autograd.gradcheck(lambda x, y=y: supervised_contrastive(x, y), (v,))


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize("kind", ["unit", "zero", "identical", "opposite", "small"])
def test_float32_is_finite_everywhere(embeddings_for, name, kind):
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
