import pytest
import torch

from core_tuning.losses import supervised_contrastive
from core_tuning.objectives import CEContrastiveLoss, CrossEntropyLoss


def manifold_terms(kit, reference, features, labels, classifier, seen):
    """CE + the mean soft CE of manifold mixtures, read off the classifier's inputs."""
    n = len(labels)
    assert seen.shape == (2 * n, kit.DIM)
    mixing = kit.coefficients(seen, features)
    torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
    mixing, partners, lam = mixing[n:], [], []
    for i, row in enumerate(mixing):
        others = kit.support(row) - {i}
        assert len(others) <= 1
        assert abs(row.sum() - 1) < 1e-6
        assert (row > -1e-6).all()
        partners.append(others.pop() if others else i)
        lam.append(float(row[i]))
    assert sorted(partners) == list(range(n))  # a permutation
    expected = reference.mixed_cross_entropy(
        classifier(features), labels, classifier(mixing @ features), mixing @ kit.one_hot(labels)
    )
    return expected, partners, lam


def test_cross_entropy_with_manifold_mixup(kit, reference, any_batch):
    drawn = set()
    for seed in range(5):
        features, y, classifier, objective = kit.setup(
            any_batch, lambda: CrossEntropyLoss(num_classes=kit.CLASSES, mixing="manifold"), seed
        )
        terms, _, seen = kit.run(objective, features, y, classifier, seed)
        expected, partners, lam = manifold_terms(kit, reference, features, y, classifier, seen)
        kit.agree(terms, expected, expected * 0, 0.0, [features, classifier.weight])
        torch.testing.assert_close(terms.total, terms.cross_entropy)
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)
        moved = [lam[i] for i in range(len(any_batch)) if partners[i] != i]
        assert len(set(moved)) == len(moved)  # a lambda per sample
        drawn.add(tuple(partners))
    assert len(drawn) > 1 or len(any_batch) <= 2


@pytest.mark.parametrize("focal", [True, False])
def test_core_tuning_with_manifold_mixup(kit, reference, focal):
    for batch in [*kit.LABELS.values(), *kit.DEGENERATE.values()]:
        features, labels, classifier, objective = kit.setup(
            batch, lambda: kit.core(mixing="manifold", focal=focal)
        )
        terms, _, seen = kit.run(objective, features, labels, classifier)
        cross_entropy, _, _ = manifold_terms(kit, reference, features, labels, classifier, seen)
        v = objective.projection(features)
        nothing = torch.zeros(len(labels), dtype=torch.bool)
        kit.agree(
            terms,
            cross_entropy,
            reference.focal_contrastive(v, labels, v, v, focal=focal, has_negative=nothing),
            0.1,
            kit.parameters_of(features, classifier, objective),
        )


def test_core_tuning_without_mixing(kit, reference, any_batch):
    features, y, classifier, objective = kit.setup(any_batch, lambda: kit.core(mixing="none"))
    terms, _, _ = kit.run(objective, features, y, classifier)
    v = objective.projection(features)
    nothing = torch.zeros(len(any_batch), dtype=torch.bool)
    kit.agree(
        terms,
        reference.cross_entropy(classifier(features), y),
        reference.focal_contrastive(v, y, v, v, has_negative=nothing),
        0.1,
        kit.parameters_of(features, classifier, objective),
    )


def test_without_mixing_and_weights_it_is_ce_con(kit, any_batch):
    features, y, classifier, objective = kit.setup(
        any_batch, lambda: kit.core(mixing="none", focal=False)
    )
    con = CEContrastiveLoss(kit.DIM, projection_dim=8).double()
    con.projection.load_state_dict(objective.projection.state_dict())
    a, _, _ = kit.run(objective, features, y, classifier)
    b, _, _ = kit.run(con, features, y, classifier)
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_cross_entropy_is_cross_entropy(kit, reference, any_batch):
    features, labels, classifier, objective = kit.setup(any_batch, CrossEntropyLoss)
    terms, _, seen = kit.run(objective, features, labels, classifier)
    expected = reference.cross_entropy(classifier(features), labels)
    kit.agree(terms, expected, expected * 0, 1.0, [features, classifier.weight])
    assert terms.contrastive.item() == 0.0
    assert len(seen) == len(labels)
    assert not list(objective.parameters())


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_ce_con_equals_the_references(kit, reference, any_batch, temperature):
    features, labels, classifier, objective = kit.setup(
        any_batch,
        lambda: CEContrastiveLoss(kit.DIM, eta=0.3, temperature=temperature, projection_dim=8),
    )
    terms, _, _ = kit.run(objective, features, labels, classifier)
    v = objective.projection(features)
    kit.agree(
        terms,
        reference.cross_entropy(classifier(features), labels),
        reference.supervised_contrastive(v, labels, temperature),
        0.3,
        kit.parameters_of(features, classifier, objective),
    )
    torch.testing.assert_close(
        terms.contrastive, supervised_contrastive(v, labels, temperature=temperature)
    )
