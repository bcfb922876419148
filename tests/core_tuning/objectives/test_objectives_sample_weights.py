"""Weights of the samples in the objectives, against loops over what head and classifier saw."""

import itertools

import pytest
import torch

from core_tuning.errors import UserError
from core_tuning.objectives import CEContrastiveLoss, CrossEntropyLoss

ETA = 0.7
EVERY = {
    "ce": lambda kit: CrossEntropyLoss(),
    "ce_manifold": lambda kit: CrossEntropyLoss(num_classes=kit.CLASSES, mixing="manifold"),
    "ce_con": lambda kit: CEContrastiveLoss(kit.DIM, projection_dim=8, eta=ETA),
    "core": lambda kit: kit.core(eta=ETA),
    "core_generated": lambda kit: kit.core(eta=ETA, positives="generated"),
    "core_sharp": lambda kit: kit.core(eta=ETA, smooth_classifier=False, focal=False),
    "core_manifold": lambda kit: kit.core(eta=ETA, mixing="manifold"),
    "core_none": lambda kit: kit.core(eta=ETA, mixing="none"),
}


def weights_for(n, kind):
    drawn = torch.rand(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) + 0.1
    return {
        "random": drawn,
        "some_zero": drawn * (torch.arange(n) % 3 != 1),
        "zero": drawn * 0,
        "halves": torch.where(torch.arange(n) < n // 2, 0.5, 1.5).double(),
    }[kind]


def weighted(objective, features, labels, classifier, weights):
    """The terms, with the same draws for any weights."""
    generator = torch.Generator().manual_seed(0)
    return objective(features, labels, classifier, generator=generator, weights=weights)


def slow_mean(pairs, *graph):
    total = sum(float(w) for w, _ in pairs)
    if total == 0:
        return sum(tensor.sum() for tensor in graph) * 0
    return sum(float(w) * x for w, x in pairs) / total


def slow_cross_entropy(logits, targets, weights):
    rows = [
        torch.logsumexp(row, 0) * target.sum() - row @ target
        for row, target in zip(logits, targets, strict=True)
    ]
    return slow_mean(list(zip(weights, rows, strict=True)), logits)


def slow_contrastive(v, labels, generated, weights, focal, positives="all", temperature=0.07):
    """`generated`: (z+, z-) of each anchor, none if empty."""
    pairs, y = [], labels.tolist()
    for i in range(len(y)):
        rest = [v[k] for k in range(len(y)) if y[k] != y[i]]
        mates = [v[k] for k in range(len(y)) if y[k] == y[i] and k != i]
        positive = mates if positives == "all" else []
        everyone = positive + rest
        if rest and generated:
            positive = [*positive, generated[0][i]]
            everyone = [*everyone, generated[0][i], generated[1][i]]
        if not positive:
            continue
        log_sum = torch.logsumexp(torch.stack([v[i] @ x for x in everyone]) / temperature, 0)
        log_p = [v[i] @ x / temperature - log_sum for x in positive]
        terms = [(1 - s.exp()) * s if focal else s for s in log_p]
        pairs.append((weights[i], -sum(terms) / len(positive)))
    return slow_mean(pairs, v, *generated)


def mixing_of(kit, objective, features, labels, classifier):
    """Coefficients of the mixtures that the head or the classifier is given for these draws."""
    _, rows, seen = kit.run(objective, features, labels, classifier, 0)
    rows = seen if rows is None or len(seen) > len(rows) else rows
    return kit.coefficients(rows, features)[len(labels) :]


def check(kit, name, batch, kind):
    features, labels, classifier, objective = kit.setup(batch, lambda: EVERY[name](kit))
    n = len(labels)
    weights = weights_for(n, kind)
    mixing = mixing_of(kit, objective, features, labels, classifier)
    assert len(mixing) == {"core": 2 * n, "core_generated": 2 * n, "core_sharp": 2 * n}.get(
        name, n if "manifold" in name else 0
    )
    several = len(set(batch)) > 1
    cross_entropy = slow_cross_entropy(classifier(features), kit.one_hot(labels), weights)
    if len(mixing) and name != "core_sharp":
        carried = torch.cat([weights] * (len(mixing) // n))
        # The hardness-directed mixup generates nothing in a batch of one class.
        carried = carried * (several or "manifold" in name)
        mixed = mixing @ features
        cross_entropy = cross_entropy + slow_cross_entropy(
            classifier(mixed), mixing @ kit.one_hot(labels), carried
        )
    contrastive = cross_entropy * 0
    if not name.startswith("ce") or name == "ce_con":
        generated = []
        if len(mixing) == 2 * n:
            generated = objective.projection(mixing @ features).split(n)
        contrastive = slow_contrastive(
            objective.projection(features),
            labels,
            generated,
            weights,
            focal=name not in ("ce_con", "core_sharp"),
            positives="generated" if name == "core_generated" else "all",
        )
    terms = weighted(objective, features, labels, classifier, weights)
    parameters = kit.parameters_of(features, classifier, objective)
    kit.agree(terms, cross_entropy, contrastive, ETA, parameters)
    torch.testing.assert_close(terms.logits, features @ classifier.weight.T)
    if kind == "zero":
        assert terms.total.item() == terms.cross_entropy.item() == terms.contrastive.item() == 0.0
        total = weighted(objective, features, labels, classifier, weights).total
        for gradient in torch.autograd.grad(total, parameters, allow_unused=True):
            assert gradient is not None
            assert not gradient.any()


@pytest.mark.parametrize(
    ("name", "kind"), itertools.product(EVERY, ["random", "some_zero", "zero", "halves"])
)
def test_weighted_objectives_equal_the_loops(kit, any_batch, name, kind):
    check(kit, name, any_batch, kind)


@pytest.mark.parametrize("name", EVERY)
def test_ones_are_no_weights_and_only_ratios_count(kit, any_batch, name):
    features, labels, classifier, objective = kit.setup(any_batch, lambda: EVERY[name](kit))
    plain = kit.run(objective, features, labels, classifier, 0)[0]
    ones = torch.ones(len(labels))
    for weights in (ones, 3 * ones, 1e-3 * ones.half()):
        terms = weighted(objective, features, labels, classifier, weights)
        for got, expected in zip(terms, plain, strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", EVERY)
def test_weights_of_another_shape_are_refused(kit, name):
    features, labels, classifier, objective = kit.setup(
        kit.LABELS["balanced"], lambda: EVERY[name](kit)
    )
    for shape in ((), (1,), (len(labels), 1), (len(labels) + 1,), (2 * len(labels),)):
        with pytest.raises(UserError, match=r"shape \(.*expected \(8,\)"):
            weighted(objective, features, labels, classifier, torch.ones(shape))


def test_the_release_has_no_weights(kit):
    features, labels, classifier, objective = kit.setup(
        kit.LABELS["balanced"], lambda: kit.released()
    )
    with pytest.raises(UserError, match="ReleasedCoreTuningLoss, which does not take them"):
        weighted(objective, features, labels, classifier, torch.ones(len(labels)))


@pytest.mark.parametrize("name", EVERY)
def test_autocast_and_half_weights_give_float32(kit, name):
    torch.manual_seed(0)
    labels = torch.tensor(kit.LABELS["with_singletons"])
    features = torch.randn(len(labels), kit.DIM).bfloat16().requires_grad_()
    objective, classifier = EVERY[name](kit), torch.nn.Linear(kit.DIM, kit.CLASSES)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            weights = torch.arange(len(labels)).to(dtype)
            terms = weighted(objective, features, labels, classifier, weights)
        assert {term.dtype for term in terms} == {torch.float32}
        assert torch.isfinite(terms.total)
