import itertools

import pytest
import torch

from core_tuning.objectives import CoreTuningLoss


@pytest.mark.parametrize(
    ("positives", "focal"), list(itertools.product(["all", "generated"], [True, False]))
)
def test_core_tuning_equals_the_references(kit, reference, varied_batch, positives, focal):
    for seed, smooth in itertools.product(range(3), (True, False)):
        features, labels, classifier, objective = kit.setup(
            varied_batch,
            lambda s=smooth: kit.core(
                positives=positives, focal=focal, smooth_classifier=s, eta=0.7
            ),
            seed,
        )
        terms, rows, _ = kit.run(objective, features, labels, classifier, seed)
        positive, negative = kit.split_mixtures(rows, features, labels, reference, 0.8)
        z_positive, z_negative = positive @ features, negative @ features
        v = objective.projection
        contrastive = reference.focal_contrastive(
            v(features), labels, v(z_positive), v(z_negative), focal=focal, positives=positives
        )
        if smooth:
            mixed = torch.cat([positive, negative])
            cross_entropy = reference.mixed_cross_entropy(
                classifier(features),
                labels,
                classifier(mixed @ features),
                mixed @ kit.one_hot(labels),
            )
        else:
            cross_entropy = reference.cross_entropy(classifier(features), labels)
        kit.agree(
            terms,
            cross_entropy,
            contrastive,
            0.7,
            kit.parameters_of(features, classifier, objective),
        )
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


def test_defaults_are_the_papers(kit, reference):
    features, labels, classifier, _ = kit.setup(kit.LABELS["balanced"], kit.core)
    objective = CoreTuningLoss(kit.DIM, kit.CLASSES).double()
    terms, rows, _ = kit.run(objective, features, labels, classifier)
    positive, negative = kit.split_mixtures(rows, features, labels, reference, 0.8)
    mixed = torch.cat([positive, negative])
    v = objective.projection
    assert v(features).shape == (len(labels), 256)
    kit.agree(
        terms,
        reference.mixed_cross_entropy(
            classifier(features), labels, classifier(mixed @ features), mixed @ kit.one_hot(labels)
        ),
        reference.focal_contrastive(
            v(features), labels, v(positive @ features), v(negative @ features), temperature=0.07
        ),
        0.1,
        kit.parameters_of(features, classifier, objective),
    )


def test_temperature_is_used(kit, reference):
    features, labels, classifier, objective = kit.setup(
        kit.LABELS["balanced"], lambda: kit.core(temperature=0.5)
    )
    terms, rows, _ = kit.run(objective, features, labels, classifier)
    positive, negative = kit.split_mixtures(rows, features, labels, reference, 0.8)
    v = objective.projection
    expected = reference.focal_contrastive(
        v(features), labels, v(positive @ features), v(negative @ features), temperature=0.5
    )
    torch.testing.assert_close(terms.contrastive, expected)


def test_lambda_bounds_and_independent_draws(kit, reference):
    labels = kit.LABELS["balanced"]
    hp_weights, hn_weights = [], []
    features, y, classifier, objective = kit.setup(labels, kit.core)
    hp, _ = reference.hardest(features, labels)
    partners = set()
    for seed in range(40):
        _, rows, _ = kit.run(objective, features, y, classifier, seed)
        positive, negative = kit.split_mixtures(rows, features, y, reference, 0.8)
        hp_weights.append([float(positive[i, hp[i]]) for i in range(len(labels))])
        hn_weights.append([float(1 - negative[i, i]) for i in range(len(labels))])
        partners.add(tuple((row != 0).long().tolist()[0] for row in negative))
    positive, negative = torch.tensor(hp_weights), torch.tensor(hn_weights)
    # alpha=1 is the uniform distribution: four fifths sit at the clip of the negatives.
    assert 0.7 < ((negative - 0.8).abs() < 1e-6).double().mean() < 0.9
    assert 0.4 < positive.mean() < 0.6
    assert positive.min() < 0.1  # lambda_p = 0: not clipped
    assert (positive.std(dim=1) > 0.05).all()  # one draw an anchor
    unclipped = negative > 0.8 + 1e-6
    assert (positive[unclipped] - negative[unclipped]).abs().mean() > 0.1  # not the same draw


def test_lambda_bounds_of_one_give_the_ends(kit, reference):
    features, labels, classifier, objective = kit.setup(
        kit.LABELS["balanced"], lambda: kit.core(lambda_n=1.0, lambda_p=1.0)
    )
    _, rows, _ = kit.run(objective, features, labels, classifier)
    positive, negative = kit.split_mixtures(rows, features, labels, reference, 1.0)
    hp, _ = reference.hardest(features, labels)
    assert positive.argmax(dim=1).tolist() == hp
    assert torch.equal(positive.amax(dim=1), torch.ones(len(labels)).double())
    assert torch.equal(negative.amax(dim=1), torch.ones(len(labels)).double())


def test_small_alpha_and_no_clip_are_passed_on(kit, reference):
    features, labels, classifier, objective = kit.setup(
        kit.LABELS["balanced"], lambda: kit.core(alpha=0.01, lambda_n=0.0)
    )
    _, rows, _ = kit.run(objective, features, labels, classifier)
    mixing = kit.coefficients(rows, features)[len(labels) :]
    # Beta(0.01, 0.01) is nearly a coin; nearly every mixture is one of its ends.
    assert (mixing.amax(dim=1) > 0.99).double().mean() > 0.7


@pytest.mark.parametrize("positives", ["all", "generated"])
@pytest.mark.parametrize("smooth", [True, False])
def test_one_class_generates_nothing(kit, reference, one_class_batch, positives, smooth):
    features, labels, classifier, objective = kit.setup(
        one_class_batch, lambda: kit.core(positives=positives, smooth_classifier=smooth)
    )
    terms, _, _ = kit.run(objective, features, labels, classifier)
    v = objective.projection(features)
    contrastive = reference.focal_contrastive(v, labels, v, v, positives=positives)
    kit.agree(
        terms,
        reference.cross_entropy(classifier(features), labels),
        contrastive,
        0.1,
        kit.parameters_of(features, classifier, objective),
    )
    if len(one_class_batch) == 1 or positives == "generated":
        assert terms.contrastive.item() == 0.0
        terms, _, _ = kit.run(objective, features, labels, classifier)
        grads = torch.autograd.grad(terms.contrastive, list(objective.projection.parameters()))
        assert all((grad == 0).all() for grad in grads)
