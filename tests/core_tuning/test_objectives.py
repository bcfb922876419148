"""The objectives, checked without knowing in which order they draw their random numbers.

The features are linearly independent, so the mixing coefficients can be read off the rows that
the projection head or the classifier was given. From these the slow references recompute every
term and, because the rows are rebuilt as coefficients times features, every gradient.
"""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from core_tuning.errors import UserError
from core_tuning.losses import supervised_contrastive
from core_tuning.objectives import (
    CEContrastiveLoss,
    CoreTuningLoss,
    CrossEntropyLoss,
    LossTerms,
)

DIM, CLASSES = 16, 5
LABELS = {
    "balanced": [0, 1, 2, 0, 1, 2, 0, 1],
    "with_singletons": [4, 0, 0, 2, 1, 0, 1],
    "all_singletons": [3, 0, 4, 1],
    "two_different": [1, 0],
}
DEGENERATE = {"one": [2], "two_same": [1, 1], "one_class": [3, 3, 3, 3]}


class Recorder(nn.Module):
    """A classifier that remembers what it was asked to classify."""

    def __init__(self, dim=DIM, classes=CLASSES):
        super().__init__()
        self.linear = nn.Linear(dim, classes, bias=False).double()
        self.seen = []

    @property
    def weight(self):
        return self.linear.weight

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.linear(x)


def setup(labels, make, seed=0):
    torch.manual_seed(seed)
    features = torch.randn(len(labels), DIM, dtype=torch.float64, requires_grad=True)
    return features, torch.tensor(labels), Recorder(), make().double()


def core(**options):
    return CoreTuningLoss(DIM, CLASSES, projection_dim=8, **options)


def run(objective, features, labels, classifier, seed=0):
    """The terms, and the rows that the head and the classifier saw."""
    rows = []
    hooks = []
    if hasattr(objective, "projection"):
        hooks.append(
            objective.projection.register_forward_pre_hook(
                lambda _, args: rows.append(args[0].detach().clone())
            )
        )
    classifier.seen.clear()
    terms = objective(features, labels, classifier, generator=torch.Generator().manual_seed(seed))
    for hook in hooks:
        hook.remove()
    assert isinstance(terms, LossTerms)
    return terms, torch.cat(rows) if rows else None, torch.cat(classifier.seen)


def coefficients(rows, features):
    """C with rows = C @ features."""
    mixing = rows @ torch.linalg.pinv(features.detach())
    torch.testing.assert_close(mixing @ features.detach(), rows, rtol=1e-7, atol=1e-7)
    return torch.round(mixing, decimals=9)


def support(row):
    return {k for k, value in enumerate(row.tolist()) if abs(value) > 1e-6}


def is_positive_block(block, hp, hn):
    return all(
        support(row) <= {hp[i], hn[i]} and abs(row.sum() - 1) < 1e-6 for i, row in enumerate(block)
    )


def is_negative_block(block, labels, minimum):
    """(1 - lambda) of the anchor itself and lambda >= minimum of one sample of another class."""
    for i, row in enumerate(block):
        partners = support(row) - {i}
        if len(partners) != 1 or labels[partners.pop()] == labels[i]:
            return False
        if abs(row.sum() - 1) > 1e-6 or not minimum - 1e-6 <= 1 - row[i] <= 1 + 1e-6:
            return False
    return True


def split_mixtures(rows, features, labels, reference, minimum):
    """(C of z+, C of z-); the originals must be the first n rows."""
    n = len(labels)
    assert rows.shape == (3 * n, DIM)
    mixing = coefficients(rows, features)
    torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
    hp, hn = reference.hardest(features, labels)
    for positive, negative in (
        (mixing[n : 2 * n], mixing[2 * n :]),
        (mixing[2 * n :], mixing[n : 2 * n]),
    ):
        if is_positive_block(positive, hp, hn) and is_negative_block(negative, labels, minimum):
            return positive, negative
    raise AssertionError(f"not the mixtures of the specification: {mixing[n:]}, {hp}, {hn}")


def one_hot(labels):
    return F.one_hot(labels, CLASSES).double()


def agree(terms, cross_entropy, contrastive, eta, parameters):
    """Both terms, their sum, and the gradient of the sum."""
    torch.testing.assert_close(terms.cross_entropy, cross_entropy, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(terms.contrastive, contrastive, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(terms.total, terms.cross_entropy + eta * terms.contrastive)
    mine = torch.autograd.grad(terms.total, parameters, allow_unused=True)
    theirs = torch.autograd.grad(cross_entropy + eta * contrastive, parameters, allow_unused=True)
    for a, b, x in zip(mine, theirs, parameters, strict=True):
        a = torch.zeros_like(x) if a is None else a
        b = torch.zeros_like(x) if b is None else b
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def parameters_of(features, classifier, objective):
    return [features, classifier.weight, *objective.parameters()]


# ---------------------------------------------------------------- Core-tuning, the equations


@pytest.mark.parametrize("name", LABELS)
@pytest.mark.parametrize(
    ("positives", "focal"), list(itertools.product(["all", "generated"], [True, False]))
)
def test_core_tuning_equals_the_references(reference, name, positives, focal):
    for seed, smooth in itertools.product(range(3), (True, False)):
        features, labels, classifier, objective = setup(
            LABELS[name],
            lambda s=smooth: core(positives=positives, focal=focal, smooth_classifier=s, eta=0.7),
            seed,
        )
        terms, rows, _ = run(objective, features, labels, classifier, seed)
        positive, negative = split_mixtures(rows, features, labels, reference, 0.8)
        z_positive, z_negative = positive @ features, negative @ features
        v = objective.projection
        contrastive = reference.focal_contrastive(
            v(features), labels, v(z_positive), v(z_negative), focal=focal, positives=positives
        )
        if smooth:
            mixed = torch.cat([positive, negative])
            cross_entropy = reference.mixed_cross_entropy(
                classifier(features), labels, classifier(mixed @ features), mixed @ one_hot(labels)
            )
        else:
            cross_entropy = reference.cross_entropy(classifier(features), labels)
        agree(
            terms,
            cross_entropy,
            contrastive,
            0.7,
            parameters_of(features, classifier, objective),
        )
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


def test_defaults_are_the_papers(reference):
    features, labels, classifier, _ = setup(LABELS["balanced"], core)
    objective = CoreTuningLoss(DIM, CLASSES).double()
    terms, rows, _ = run(objective, features, labels, classifier)
    positive, negative = split_mixtures(rows, features, labels, reference, 0.8)
    mixed = torch.cat([positive, negative])
    v = objective.projection
    assert v(features).shape == (len(labels), 256)
    agree(
        terms,
        reference.mixed_cross_entropy(
            classifier(features), labels, classifier(mixed @ features), mixed @ one_hot(labels)
        ),
        reference.focal_contrastive(
            v(features), labels, v(positive @ features), v(negative @ features), temperature=0.07
        ),
        0.1,
        parameters_of(features, classifier, objective),
    )


def test_temperature_is_used(reference):
    features, labels, classifier, objective = setup(
        LABELS["balanced"], lambda: core(temperature=0.5)
    )
    terms, rows, _ = run(objective, features, labels, classifier)
    positive, negative = split_mixtures(rows, features, labels, reference, 0.8)
    v = objective.projection
    expected = reference.focal_contrastive(
        v(features), labels, v(positive @ features), v(negative @ features), temperature=0.5
    )
    torch.testing.assert_close(terms.contrastive, expected)


def test_lambda_bounds_and_independent_draws(reference):
    labels = LABELS["balanced"]
    hp_weights, hn_weights = [], []
    features, y, classifier, objective = setup(labels, core)
    hp, _ = reference.hardest(features, labels)
    partners = set()
    for seed in range(40):
        _, rows, _ = run(objective, features, y, classifier, seed)
        positive, negative = split_mixtures(rows, features, y, reference, 0.8)
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


def test_lambda_bounds_of_one_give_the_ends(reference):
    features, labels, classifier, objective = setup(
        LABELS["balanced"], lambda: core(lambda_n=1.0, lambda_p=1.0)
    )
    _, rows, _ = run(objective, features, labels, classifier)
    positive, negative = split_mixtures(rows, features, labels, reference, 1.0)
    hp, _ = reference.hardest(features, labels)
    assert positive.argmax(dim=1).tolist() == hp
    assert torch.equal(positive.amax(dim=1), torch.ones(len(labels)).double())
    assert torch.equal(negative.amax(dim=1), torch.ones(len(labels)).double())


def test_small_alpha_and_no_clip_are_passed_on(reference):
    features, labels, classifier, objective = setup(
        LABELS["balanced"], lambda: core(alpha=0.01, lambda_n=0.0)
    )
    _, rows, _ = run(objective, features, labels, classifier)
    mixing = coefficients(rows, features)[len(labels) :]
    # Beta(0.01, 0.01) is nearly a coin; nearly every mixture is one of its ends.
    assert (mixing.amax(dim=1) > 0.99).double().mean() > 0.7


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.parametrize("positives", ["all", "generated"])
@pytest.mark.parametrize("smooth", [True, False])
def test_one_class_generates_nothing(reference, name, positives, smooth):
    features, labels, classifier, objective = setup(
        DEGENERATE[name], lambda: core(positives=positives, smooth_classifier=smooth)
    )
    terms, _, _ = run(objective, features, labels, classifier)
    v = objective.projection(features)
    contrastive = reference.focal_contrastive(v, labels, v, v, positives=positives)
    agree(
        terms,
        reference.cross_entropy(classifier(features), labels),
        contrastive,
        0.1,
        parameters_of(features, classifier, objective),
    )
    if name == "one" or positives == "generated":
        assert terms.contrastive.item() == 0.0
        terms, _, _ = run(objective, features, labels, classifier)
        grads = torch.autograd.grad(terms.contrastive, list(objective.projection.parameters()))
        assert all((grad == 0).all() for grad in grads)


# ---------------------------------------------------------------- Core-tuning, Table 2's rows


def manifold_terms(reference, features, labels, classifier, seen):
    """CE + the mean soft CE of manifold mixtures, read off the classifier's inputs."""
    n = len(labels)
    assert seen.shape == (2 * n, DIM)
    mixing = coefficients(seen, features)
    torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
    mixing, partners, lam = mixing[n:], [], []
    for i, row in enumerate(mixing):
        others = support(row) - {i}
        assert len(others) <= 1
        assert abs(row.sum() - 1) < 1e-6
        assert (row > -1e-6).all()
        partners.append(others.pop() if others else i)
        lam.append(float(row[i]))
    assert sorted(partners) == list(range(n))  # a permutation
    expected = reference.mixed_cross_entropy(
        classifier(features), labels, classifier(mixing @ features), mixing @ one_hot(labels)
    )
    return expected, partners, lam


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
def test_cross_entropy_with_manifold_mixup(reference, name):
    labels = {**LABELS, **DEGENERATE}[name]
    drawn = set()
    for seed in range(5):
        features, y, classifier, objective = setup(
            labels, lambda: CrossEntropyLoss(num_classes=CLASSES, mixing="manifold"), seed
        )
        terms, _, seen = run(objective, features, y, classifier, seed)
        expected, partners, lam = manifold_terms(reference, features, y, classifier, seen)
        agree(terms, expected, expected * 0, 0.0, [features, classifier.weight])
        torch.testing.assert_close(terms.total, terms.cross_entropy)
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)
        moved = [lam[i] for i in range(len(labels)) if partners[i] != i]
        assert len(set(moved)) == len(moved)  # a lambda per sample
        drawn.add(tuple(partners))
    assert len(drawn) > 1 or len(labels) <= 2


@pytest.mark.parametrize("focal", [True, False])
def test_core_tuning_with_manifold_mixup(reference, focal):
    for name in [*LABELS, *DEGENERATE]:
        features, labels, classifier, objective = setup(
            {**LABELS, **DEGENERATE}[name], lambda: core(mixing="manifold", focal=focal)
        )
        terms, _, seen = run(objective, features, labels, classifier)
        cross_entropy, _, _ = manifold_terms(reference, features, labels, classifier, seen)
        v = objective.projection(features)
        nothing = torch.zeros(len(labels), dtype=torch.bool)
        agree(
            terms,
            cross_entropy,
            reference.focal_contrastive(v, labels, v, v, focal=focal, has_negative=nothing),
            0.1,
            parameters_of(features, classifier, objective),
        )


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
def test_core_tuning_without_mixing(reference, name):
    labels = {**LABELS, **DEGENERATE}[name]
    features, y, classifier, objective = setup(labels, lambda: core(mixing="none"))
    terms, _, _ = run(objective, features, y, classifier)
    v = objective.projection(features)
    nothing = torch.zeros(len(labels), dtype=torch.bool)
    agree(
        terms,
        reference.cross_entropy(classifier(features), y),
        reference.focal_contrastive(v, y, v, v, has_negative=nothing),
        0.1,
        parameters_of(features, classifier, objective),
    )


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
def test_without_mixing_and_weights_it_is_ce_con(name):
    labels = {**LABELS, **DEGENERATE}[name]
    features, y, classifier, objective = setup(labels, lambda: core(mixing="none", focal=False))
    con = CEContrastiveLoss(DIM, projection_dim=8).double()
    con.projection.load_state_dict(objective.projection.state_dict())
    a, _, _ = run(objective, features, y, classifier)
    b, _, _ = run(con, features, y, classifier)
    for left, right in zip(a, b, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------- CE and CE-Con


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
def test_cross_entropy_is_cross_entropy(reference, name):
    features, labels, classifier, objective = setup(
        {**LABELS, **DEGENERATE}[name], CrossEntropyLoss
    )
    terms, _, seen = run(objective, features, labels, classifier)
    expected = reference.cross_entropy(classifier(features), labels)
    agree(terms, expected, expected * 0, 1.0, [features, classifier.weight])
    assert terms.contrastive.item() == 0.0
    assert len(seen) == len(labels)
    assert not list(objective.parameters())


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_ce_con_equals_the_references(reference, name, temperature):
    features, labels, classifier, objective = setup(
        {**LABELS, **DEGENERATE}[name],
        lambda: CEContrastiveLoss(DIM, eta=0.3, temperature=temperature, projection_dim=8),
    )
    terms, _, _ = run(objective, features, labels, classifier)
    v = objective.projection(features)
    agree(
        terms,
        reference.cross_entropy(classifier(features), labels),
        reference.supervised_contrastive(v, labels, temperature),
        0.3,
        parameters_of(features, classifier, objective),
    )
    torch.testing.assert_close(
        terms.contrastive, supervised_contrastive(v, labels, temperature=temperature)
    )


# ---------------------------------------------------------------- the authors' release


@pytest.mark.parametrize("name", [*LABELS, *DEGENERATE])
def test_released_equals_the_references(reference, name):
    labels = {**LABELS, **DEGENERATE}[name]
    n = len(labels)
    for seed in range(4):
        features, y, classifier, objective = setup(labels, lambda: core(variant="released"), seed)
        terms, rows, _ = run(objective, features, y, classifier, seed)
        assert rows.shape == (3 * n, DIM)
        mixing = coefficients(rows, features)
        torch.testing.assert_close(mixing[:n], torch.eye(n).double(), rtol=0, atol=1e-8)
        negative, positive = mixing[n : 2 * n], mixing[2 * n :]
        hp, hn = reference.released_pairs(features, labels)
        assert is_positive_block(positive, hp, hn)
        partners = negative.argmax(dim=1).tolist()
        assert sorted(partners) == list(range(n))
        assert all(support(row) <= {i, partners[i]} for i, row in enumerate(negative))
        assert (negative.amax(dim=1) >= 0.8 - 1e-6).all()
        # The originals are detached: only the mixtures pass the gradient on.
        rebuilt = torch.cat([features.detach(), negative @ features, positive @ features])
        targets = torch.round(mixing @ one_hot(y), decimals=7)
        agree(
            terms,
            reference.released_cross_entropy(classifier(rebuilt), targets),
            reference.released_contrastive(objective.projection(rebuilt), targets),
            0.1,
            parameters_of(features, classifier, objective),
        )
        torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


def test_released_is_another_number():
    features, labels, classifier, objective = setup(LABELS["balanced"], core)
    released = core(variant="released").double()
    released.load_state_dict(objective.state_dict())
    a, _, _ = run(objective, features, labels, classifier)
    b, _, _ = run(released, features, labels, classifier)
    assert not torch.isclose(a.total, b.total)


# ---------------------------------------------------------------- every objective

EVERY = {
    "ce": CrossEntropyLoss,
    "ce_manifold": lambda: CrossEntropyLoss(num_classes=CLASSES, mixing="manifold"),
    "ce_con": lambda: CEContrastiveLoss(DIM, projection_dim=8),
    "core": core,
    "core_generated": lambda: core(positives="generated"),
    "core_sharp": lambda: core(smooth_classifier=False),
    "core_manifold": lambda: core(mixing="manifold"),
    "core_none": lambda: core(mixing="none"),
    "released": lambda: core(variant="released"),
}


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_result_and_global_state_untouched(name):
    features, labels, classifier, objective = setup(LABELS["balanced"], EVERY[name])
    state = torch.get_rng_state()
    a, _, _ = run(objective, features, labels, classifier, 5)
    b, _, _ = run(objective, features, labels, classifier, 5)
    other, _, _ = run(objective, features, labels, classifier, 6)
    assert torch.equal(torch.get_rng_state(), state)
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)
    random = name not in ("ce", "ce_con", "core_none")
    assert torch.equal(a.total, other.total) != random


@pytest.mark.parametrize("name", EVERY)
def test_without_a_generator_the_global_seed_decides(name):
    features, labels, classifier, objective = setup(LABELS["balanced"], EVERY[name])
    torch.manual_seed(1)
    a = objective(features, labels, classifier)
    torch.manual_seed(1)
    assert torch.equal(a.total, objective(features, labels, classifier).total)


@pytest.mark.parametrize("name", EVERY)
def test_total_and_logits(name):
    features, labels, classifier, objective = setup(LABELS["with_singletons"], EVERY[name])
    terms, _, _ = run(objective, features, labels, classifier)
    eta = 0.1  # every default
    torch.testing.assert_close(terms.total, terms.cross_entropy + eta * terms.contrastive)
    assert terms.total.shape == terms.cross_entropy.shape == terms.contrastive.shape == ()
    assert terms.logits.shape == (len(labels), CLASSES)
    torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_everything(name):
    features, labels, classifier, objective = setup(LABELS["balanced"], EVERY[name])
    terms, _, _ = run(objective, features, labels, classifier)
    terms.total.backward()
    for x in parameters_of(features, classifier, objective):
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0


@pytest.mark.parametrize("name", EVERY)
def test_any_batch_is_finite(name):
    for labels in [*LABELS.values(), *DEGENERATE.values()]:
        for scale in (0.0, 1e-6, 1.0, 1e6):
            features, y, classifier, objective = setup(labels, EVERY[name])
            features = (features.detach() * scale).requires_grad_()
            terms, _, _ = run(objective, features, y, classifier)
            assert torch.isfinite(terms.total)
            terms.total.backward()
            for x in parameters_of(features, classifier, objective):
                assert x.grad is not None  # unused parameters would stop distributed training
                assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", EVERY)
def test_state_dict_and_deepcopy(name):
    features, labels, classifier, objective = setup(LABELS["balanced"], EVERY[name])
    twin = copy.deepcopy(objective)
    fresh = EVERY[name]().double()
    fresh.load_state_dict(objective.state_dict())
    assert all(key.startswith("projection.") for key in objective.state_dict())
    expected, _, _ = run(objective, features, labels, classifier)
    for other in (twin, fresh):
        terms, _, _ = run(other, features, labels, classifier)
        assert torch.equal(terms.total, expected.total)


@pytest.mark.parametrize("name", EVERY)
def test_train_and_eval_mode_agree(name):
    features, labels, classifier, objective = setup(LABELS["balanced"], EVERY[name])
    a, _, _ = run(objective.train(), features, labels, classifier)
    b, _, _ = run(objective.eval(), features, labels, classifier)
    assert torch.equal(a.total, b.total)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_gives_float32_terms(name):
    torch.manual_seed(0)
    labels = torch.tensor(LABELS["balanced"])
    features = torch.randn(len(labels), DIM).bfloat16().requires_grad_()
    classifier, objective = nn.Linear(DIM, CLASSES, bias=False), EVERY[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = objective(features, labels, classifier, generator=torch.Generator().manual_seed(0))
    full = objective(
        features.float(), labels, classifier, generator=torch.Generator().manual_seed(0)
    )
    for term, exact in zip(low[:3], full[:3], strict=True):
        assert term.dtype == torch.float32
        # The layers ran in bfloat16; the draws and the pairs must be the same.
        torch.testing.assert_close(term, exact, rtol=0.05, atol=0.05)
    low.total.backward()
    assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_modules_of_another_type(name, dtype):
    torch.manual_seed(0)
    labels = torch.tensor(LABELS["balanced"])
    features = torch.randn(len(labels), DIM).to(dtype)
    classifier = nn.Linear(DIM, CLASSES, bias=False).to(dtype)
    terms = EVERY[name]().to(dtype)(features, labels, classifier)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert terms.total.dtype == terms.cross_entropy.dtype == expected
    assert torch.isfinite(terms.total)


def test_many_classes():
    torch.manual_seed(0)
    labels = torch.tensor([119, 64, 63, 119, 0, 20, 64])
    for variant in ("equations", "released"):
        objective = CoreTuningLoss(DIM, 120, variant=variant)
        terms = objective(torch.randn(7, DIM), labels, nn.Linear(DIM, 120, bias=False))
        assert torch.isfinite(terms.total)
        assert terms.logits.shape == (7, 120)


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_the_projection_is_configurable(depth):
    for objective in (
        CoreTuningLoss(DIM, CLASSES, projection_dim=6, projection_depth=depth),
        CEContrastiveLoss(DIM, projection_dim=6, projection_depth=depth),
    ):
        linear = [m for m in objective.projection.modules() if isinstance(m, nn.Linear)]
        assert len(linear) == depth
        out = objective.projection(torch.randn(3, DIM))
        assert out.shape == (3, 6)
        torch.testing.assert_close(out.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("eta", -0.1),
        ("alpha", 0.0),
        ("alpha", -1.0),
        ("temperature", 0.0),
        ("temperature", -0.07),
        ("lambda_n", -0.1),
        ("lambda_n", 1.1),
        ("lambda_p", -0.1),
        ("lambda_p", 1.1),
        ("projection_depth", 0),
        ("projection_depth", 6),
        ("positives", "some"),
        ("mixing", "soft"),
        ("variant", "mine"),
    ],
)
def test_core_tuning_refuses(option, value):
    # The message must name the value.
    with pytest.raises(UserError, match=str(value)):
        core(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("eta", -1.0), ("temperature", 0.0), ("projection_depth", 0), ("projection_depth", 6)],
)
def test_ce_con_refuses(option, value):
    with pytest.raises(UserError, match=str(value)):
        CEContrastiveLoss(DIM, **{option: value})


@pytest.mark.parametrize(("option", "value"), [("mixing", "hard"), ("alpha", 0.0), ("alpha", -2.0)])
def test_cross_entropy_refuses(option, value):
    options = {"mixing": "manifold", option: value}
    with pytest.raises(UserError, match=str(value)):
        CrossEntropyLoss(num_classes=CLASSES, **options)


def test_the_ends_of_each_range_are_allowed():
    labels = torch.tensor(LABELS["balanced"])
    torch.manual_seed(0)
    for bound in (0.0, 1.0):
        objective = core(eta=0.0, lambda_n=bound, lambda_p=bound)
        terms = objective(torch.randn(len(labels), DIM), labels, nn.Linear(DIM, CLASSES))
        torch.testing.assert_close(terms.total, terms.cross_entropy)
