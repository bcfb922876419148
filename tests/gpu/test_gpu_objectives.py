"""The objectives on a GPU: they equal the CPU's, and wait for nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from core_tuning import mining, objectives, released

DIM, CLASSES = 32, 5
OBJECTIVES = {
    "ce": lambda: objectives.CrossEntropyLoss(),
    "ce_manifold": lambda: objectives.CrossEntropyLoss(CLASSES, mixing="manifold"),
    "ce_con": lambda: objectives.CEContrastiveLoss(DIM, projection_dim=8),
    "core": lambda: objectives.CoreTuningLoss(DIM, CLASSES),
    "core_generated": lambda: objectives.CoreTuningLoss(DIM, CLASSES, positives="generated"),
    "core_sharp": lambda: objectives.CoreTuningLoss(
        DIM, CLASSES, smooth_classifier=False, focal=False
    ),
    "core_manifold": lambda: objectives.CoreTuningLoss(DIM, CLASSES, mixing="manifold"),
    "core_none": lambda: objectives.CoreTuningLoss(DIM, CLASSES, mixing="none"),
    "released": lambda: released.ReleasedCoreTuningLoss(DIM, CLASSES),
}
CALLS = [(name, weighted) for name in OBJECTIVES for weighted in (False, True)]
CALLS.remove(("released", True))  # the release has no weights


class SharedDraws(TorchFunctionMode):
    """Draws on the CPU whatever the device, because each device's generator is another one."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func not in (torch.rand, torch.randperm):
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        return func(*args, **{**kwargs, "generator": self.generator}).to(device or "cpu")


def lambda_from_the_cpu(n, alpha, *, minimum=0.0, device=None, generator=None):
    """Compute mixing factors there too: they are float32, rounded otherwise on a GPU."""
    return mining.sample_lambda(n, alpha, minimum=minimum).to(device)


@pytest.fixture
def shared_draws(monkeypatch):
    for module in ("objectives", "smoothing", "released"):
        monkeypatch.setattr(f"core_tuning.{module}.sample_lambda", lambda_from_the_cpu)


def problem(name, device, dtype, n=24):
    """Objective, classifier, features (n, DIM) with gradient, labels (n,) and weights (n,)."""
    torch.manual_seed(0)
    objective = OBJECTIVES[name]().to(device, dtype)
    classifier = nn.Linear(DIM, CLASSES, bias=False).to(device, dtype)
    features = torch.randn(n, DIM).relu().to(device, dtype).requires_grad_()
    labels, weights = torch.randint(CLASSES, (n,)).to(device), torch.rand(n).to(device)
    return objective, classifier, features, labels, weights


def terms_and_gradients(name, weighted, device, dtype):
    objective, classifier, features, labels, weights = problem(name, device, dtype)
    with SharedDraws():
        terms = objective(features, labels, classifier, weights=weights if weighted else None)
    terms.total.backward()
    parameters = [*objective.parameters(), *classifier.parameters()]
    return [
        tensor.detach().cpu() for tensor in (*terms, features.grad, *(p.grad for p in parameters))
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("name", "weighted"), CALLS)
def test_loss_and_gradients_equal_the_cpus(cuda, shared_draws, name, weighted, dtype, tolerance):
    expected = terms_and_gradients(name, weighted, torch.device("cpu"), dtype)
    found = terms_and_gradients(name, weighted, cuda, dtype)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.fixture
def no_waiting():
    """Make whatever waits for the GPU an error."""

    def start():
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")

    yield start
    torch.cuda.set_sync_debug_mode("default")


def test_the_watch_sees_a_wait(cuda, no_waiting):
    value = torch.ones((), device=cuda)
    no_waiting()
    with pytest.raises(RuntimeError, match="synchroni"):
        value.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "weighted"), CALLS)
def test_forward_and_backward_wait_for_nothing(cuda, no_waiting, name, weighted, dtype):
    objective, classifier, features, labels, weights = problem(name, cuda, torch.float32)
    features = features.detach().to(dtype).requires_grad_()
    generator = torch.Generator(cuda).manual_seed(0)
    # The first call may wait for libraries to load.
    for watched in (False, True):
        if watched:
            no_waiting()
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            terms = objective(
                features,
                labels,
                classifier,
                generator=generator,
                weights=weights if weighted else None,
            )
        terms.total.backward()
    torch.cuda.set_sync_debug_mode("default")
    assert (
        terms.total.dtype == terms.cross_entropy.dtype == terms.contrastive.dtype == torch.float32
    )
    assert all(torch.isfinite(part).all() for part in (*terms, features.grad))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_tiny_batches_are_finite(cuda, name, n):
    objective, classifier, features, labels, _ = problem(name, cuda, torch.float32, n)
    terms = objective(features, labels, classifier)
    terms.total.backward()
    assert all(torch.isfinite(part).all() for part in (*terms, features.grad))
