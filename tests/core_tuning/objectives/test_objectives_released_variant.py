import torch


def test_released_equals_the_references(kit, reference, any_batch):
    n = len(any_batch)
    for seed in range(4):
        features, y, classifier, objective = kit.setup(any_batch, lambda: kit.released(), seed)
        terms, rows, _ = kit.run(objective, features, y, classifier, seed)
        assert rows.shape == (3 * n, kit.DIM)
        mixing = kit.coefficients(rows, features)
        torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
        negative, positive = mixing[n : 2 * n], mixing[2 * n :]
        hp, hn = reference.released_pairs(features, any_batch)
        assert kit.is_positive_block(positive, hp, hn)
        partners = negative.argmax(dim=1).tolist()
        assert sorted(partners) == list(range(n))
        assert all(kit.support(row) <= {i, partners[i]} for i, row in enumerate(negative))
        assert (negative.amax(dim=1) >= 0.8 - 1e-6).all()
        # The originals are detached: only the mixtures pass the gradient on.
        rebuilt = torch.cat([features.detach(), negative @ features, positive @ features])
        targets = torch.round(mixing @ kit.one_hot(y), decimals=7)
        kit.agree(
            terms,
            reference.released_cross_entropy(classifier(rebuilt), targets),
            reference.released_contrastive(objective.projection(rebuilt), targets),
            0.1,
            kit.parameters_of(features, classifier, objective),
        )
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


def test_released_is_another_number(kit):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], kit.core)
    released = kit.released().double()
    released.load_state_dict(objective.state_dict())
    a, _, _ = kit.run(objective, features, labels, classifier)
    b, _, _ = kit.run(released, features, labels, classifier)
    assert not torch.isclose(a.total, b.total)
