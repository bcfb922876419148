"""Random numbers made outside the graph: compiled, differentiated twice, refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad

from core_tuning.errors import UserError
from core_tuning.objectives import CEContrastiveLoss, CoreTuningLoss, CrossEntropyLoss
from core_tuning.released import ReleasedCoreTuningLoss

D, K, N = 5, 3, 8
MAKERS = {
    "ce": lambda: CrossEntropyLoss(),
    "ce manifold": lambda: CrossEntropyLoss(K, mixing="manifold"),
    "ce_con": lambda: CEContrastiveLoss(D, projection_dim=4),
    "core_tuning": lambda: CoreTuningLoss(D, K, projection_dim=4),
    "core_tuning manifold": lambda: CoreTuningLoss(D, K, mixing="manifold", projection_dim=4),
    "core_tuning none": lambda: CoreTuningLoss(D, K, mixing="none", projection_dim=4),
    "core_tuning not smooth": lambda: CoreTuningLoss(
        D, K, smooth_classifier=False, positives="generated", projection_dim=4
    ),
    "released": lambda: ReleasedCoreTuningLoss(D, K, projection_dim=4),
}


@pytest.fixture(params=MAKERS, ids=lambda name: name.replace(" ", "_"))
def objective(request):
    torch.manual_seed(0)
    return MAKERS[request.param]().double()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(N, D, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 1, 2])
    return features, labels, nn.Linear(D, K).double()


def test_draws_give_what_their_generator_gives(objective, batch):
    draws = objective.draw(N, "cpu", torch.Generator().manual_seed(3))
    with_draws = objective(*batch, draws=draws)
    with_generator = objective(*batch, generator=torch.Generator().manual_seed(3))
    for one, other in zip(with_draws, with_generator, strict=True):
        assert torch.equal(one, other)
    assert tuple(draws) == objective.random
    assert all(numbers.shape == (N,) for numbers in draws.values())


def test_one_graph_holds_the_objective(objective, batch):
    torch._dynamo.reset()
    features, labels, classifier = batch
    draws = objective.draw(N)

    def total(features, labels, draws):
        return objective(features, labels, classifier, draws=draws).total

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    leaf, same = (features.clone().requires_grad_() for _ in range(2))
    expected, got = total(leaf, labels, draws), compiled(same, labels, draws)
    torch.testing.assert_close(got, expected)
    expected.backward()
    got.backward()
    torch.testing.assert_close(same.grad, leaf.grad)


def test_functional_gradients_are_those_of_autograd(objective, batch):
    features, labels, classifier = batch
    draws = objective.draw(N)
    parameters = dict(objective.named_parameters())

    def total(features, parameters):
        arguments = (features, labels, classifier)
        return functional_call(objective, parameters, arguments, {"draws": draws}).total

    leaf = features.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf, parameters), leaf)
    torch.testing.assert_close(grad(total)(features, parameters), expected)


def test_gradients_have_gradients(objective, batch):
    if isinstance(objective, ReleasedCoreTuningLoss):
        pytest.skip("the release detaches originals, which a difference quotient moves")
    features, labels, classifier = batch
    draws = objective.draw(N)

    def total(features):
        return objective(features, labels, classifier, draws=draws).total

    assert torch.autograd.gradgradcheck(total, features.clone().requires_grad_(), atol=1e-4)


def test_wrong_draws_are_refused(objective, batch):
    draws = objective.draw(N)
    with pytest.raises(UserError, match=r"draws are .*other.*: expected .* make them with draw"):
        objective(*batch, draws={**draws, "other": torch.zeros(N)})
    for name in draws:
        with pytest.raises(UserError, match=rf"{name} .*shape \(7,\): expected \(8,\)"):
            objective(*batch, draws={**draws, name: draws[name][:7]})
        with pytest.raises(UserError, match="expected one device"):
            objective(*batch, draws={**draws, name: draws[name].to("meta")})
