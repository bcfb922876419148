import copy
import functools

import pytest
import torch
from torch import nn

from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss
from core_tuning.released import ReleasedCoreTuningLoss

EVERY = {
    "ce": lambda kit: CrossEntropyLoss(),
    "ce_manifold": lambda kit: CrossEntropyLoss(num_classes=kit.CLASSES, mixing="manifold"),
    "ce_con": lambda kit: CEContrastiveLoss(kit.DIM, projection_dim=8),
    "core": lambda kit: kit.core(),
    "core_generated": lambda kit: kit.core(positives="generated"),
    "core_sharp": lambda kit: kit.core(smooth_classifier=False),
    "core_manifold": lambda kit: kit.core(mixing="manifold"),
    "core_none": lambda kit: kit.core(mixing="none"),
    "released": lambda kit: kit.released(),
}


@pytest.fixture
def make(kit, name):
    """What makes the objective of that name."""
    return functools.partial(EVERY[name], kit)


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_result_and_global_state_untouched(kit, make, name):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], make)
    state = torch.get_rng_state()
    a, _, _ = kit.run(objective, features, labels, classifier, 5)
    b, _, _ = kit.run(objective, features, labels, classifier, 5)
    other, _, _ = kit.run(objective, features, labels, classifier, 6)
    assert torch.equal(torch.get_rng_state(), state)
    for left, right in zip(a, b, strict=True):
        assert torch.equal(left, right)
    random = name not in ("ce", "ce_con", "core_none")
    assert torch.equal(a.total, other.total) != random


@pytest.mark.parametrize("name", EVERY)
def test_without_a_generator_the_global_seed_decides(kit, make):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], make)
    torch.manual_seed(1)
    a = objective(features, labels, classifier)
    torch.manual_seed(1)
    assert torch.equal(a.total, objective(features, labels, classifier).total)


@pytest.mark.parametrize("name", EVERY)
def test_total_and_logits(kit, make):
    features, labels, classifier, objective = kit.setup(kit.LABELS["with_singletons"], make)
    terms, _, _ = kit.run(objective, features, labels, classifier)
    eta = 0.1  # every default
    torch.testing.assert_close(terms.total, terms.cross_entropy + eta * terms.contrastive)
    assert terms.total.shape == terms.cross_entropy.shape == terms.contrastive.shape == ()
    assert terms.logits.shape == (len(labels), kit.CLASSES)
    torch.testing.assert_close(terms.logits, features @ classifier.weight.T)


@pytest.mark.parametrize("name", EVERY)
def test_gradients_reach_everything(kit, make):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], make)
    terms, _, _ = kit.run(objective, features, labels, classifier)
    terms.total.backward()
    for x in kit.parameters_of(features, classifier, objective):
        assert torch.isfinite(x.grad).all()
        assert x.grad.abs().max() > 0


@pytest.mark.parametrize("name", EVERY)
def test_any_batch_is_finite(kit, make):
    for labels in [*kit.LABELS.values(), *kit.DEGENERATE.values()]:
        for scale in (0.0, 1e-6, 1.0, 1e6):
            features, y, classifier, objective = kit.setup(labels, make)
            features = (features.detach() * scale).requires_grad_()
            terms, _, _ = kit.run(objective, features, y, classifier)
            assert torch.isfinite(terms.total)
            terms.total.backward()
            for x in kit.parameters_of(features, classifier, objective):
                assert x.grad is not None  # unused parameters would stop distributed training
                assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("name", EVERY)
def test_state_dict_and_deepcopy(kit, make):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], make)
    twin = copy.deepcopy(objective)
    fresh = make().double()
    fresh.load_state_dict(objective.state_dict())
    assert all(key.startswith("projection.") for key in objective.state_dict())
    expected, _, _ = kit.run(objective, features, labels, classifier)
    for other in (twin, fresh):
        terms, _, _ = kit.run(other, features, labels, classifier)
        assert torch.equal(terms.total, expected.total)


@pytest.mark.parametrize("name", EVERY)
def test_train_and_eval_mode_agree(kit, make):
    features, labels, classifier, objective = kit.setup(kit.LABELS["balanced"], make)
    a, _, _ = kit.run(objective.train(), features, labels, classifier)
    b, _, _ = kit.run(objective.eval(), features, labels, classifier)
    assert torch.equal(a.total, b.total)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_gives_float32_terms(kit, make):
    torch.manual_seed(0)
    labels = torch.tensor(kit.LABELS["balanced"])
    features = torch.randn(len(labels), kit.DIM).bfloat16().requires_grad_()
    classifier, objective = nn.Linear(kit.DIM, kit.CLASSES, bias=False), make()
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
def test_modules_of_another_type(kit, make, dtype):
    torch.manual_seed(0)
    labels = torch.tensor(kit.LABELS["balanced"])
    features = torch.randn(len(labels), kit.DIM).to(dtype)
    classifier = nn.Linear(kit.DIM, kit.CLASSES, bias=False).to(dtype)
    terms = make().to(dtype)(features, labels, classifier)
    expected = torch.float64 if dtype == torch.float64 else torch.float32
    assert terms.total.dtype == terms.cross_entropy.dtype == expected
    assert torch.isfinite(terms.total)


def test_many_classes(kit):
    torch.manual_seed(0)
    labels = torch.tensor([119, 64, 63, 119, 0, 20, 64])
    for cls in (CoreTuningLoss, ReleasedCoreTuningLoss):
        objective = cls(kit.DIM, 120)
        terms = objective(torch.randn(7, kit.DIM), labels, nn.Linear(kit.DIM, 120, bias=False))
        assert torch.isfinite(terms.total)
        assert terms.logits.shape == (7, 120)
