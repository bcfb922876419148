"""The core on fake CUDA tensors: a synchronisation or a device mix-up raises without a GPU."""

import ast
import importlib
import inspect
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core_tuning import heads, losses, mining, objectives, released
from core_tuning.errors import UserError

MODULES = [
    "mining", "losses", "objectives", "released", "heads", "arguments",
]  # fmt: skip


class CudaOnly(TorchDispatchMode):
    """Refuses a tensor made on, or copied to, the CPU, which fake tensors alone allow."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                copied = any(x.device.type == "cuda" for x in inputs)
                # A scalar constant on the CPU costs nothing: it travels with the kernel.
                if copied or tensor.dim() > 0:
                    raise AssertionError(f"{func} made a tensor on the CPU")
        return out


@contextmanager
def fake_cuda():
    with FakeTensorMode(), torch.device("cuda"), CudaOnly():
        yield


@contextmanager
def cuda_autocast():
    """torch.autocast("cuda") turns itself off where there is no GPU; this does not."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def on_cuda(*tensors):
    for tensor in tensors:
        assert tensor.device.type == "cuda"


def batch(n=6, dim=8, dtype=torch.float32):
    return torch.randn(n, dim, dtype=dtype), torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x.sum().item(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: bool(x.sum() > 0),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x + torch.ones(6, 8, device="cpu"),
        lambda x: x[torch.zeros(6, dtype=torch.long, device="cpu")],
        lambda x: torch.tensor([1.0, 2.0], device="cpu").to(x.device),
    ],
)
def test_the_harness_catches_what_it_is_for(wrong):
    with fake_cuda():
        x, _ = batch()
        with pytest.raises(Exception):  # noqa: B017 — each mistake has its own exception
            wrong(x)


def test_a_device_mix_raises_without_the_extra_watch():
    with FakeTensorMode():
        x = torch.ones(3, device="cuda")
        with pytest.raises(RuntimeError):
            x + torch.ones(3, device="cpu")


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_mining(n, dtype):
    with fake_cuda():
        features, labels = batch(n, dtype=dtype)
        features.requires_grad_()
        pairs = mining.mine_pairs(features, labels)
        on_cuda(*pairs)
        lam = mining.sample_lambda(n, 0.3, minimum=0.8, device="cuda")
        on_cuda(lam)
        assert lam.shape == (n,)
        mixed = mining.mix_pairs(features, F.one_hot(labels, 4).float(), pairs, lam, lam)
        on_cuda(*mixed)
        assert mixed.positive.shape == mixed.negative.shape == (n, 8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_losses(n, dtype):
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    with fake_cuda():
        v, labels = batch(n, dtype=dtype)
        p, q = torch.randn_like(v), torch.randn_like(v)
        results = [losses.supervised_contrastive(v, labels)]
        for positives in ("all", "generated"):
            for focal in (True, False):
                for has_negative in (None, torch.ones(n, dtype=torch.bool)):
                    results.append(
                        losses.focal_contrastive(
                            v,
                            labels,
                            p,
                            q,
                            focal=focal,
                            positives=positives,
                            has_negative=has_negative,
                        )
                    )
        logits, mixed = torch.randn(n, 4, dtype=dtype), torch.randn(2 * n, 4, dtype=dtype)
        targets = torch.rand(2 * n, 4)
        results.append(losses.mixed_cross_entropy(logits, labels, mixed, targets))
        results.append(
            losses.mixed_cross_entropy(logits, labels, mixed, targets, weights=torch.ones(2 * n))
        )
        for loss in results:
            on_cuda(loss)
            assert loss.shape == ()
            assert loss.dtype == wide


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_weighted_losses(n, dtype):
    with fake_cuda():
        v, labels = batch(n, dtype=dtype)
        logits, mixed = torch.randn(n, 4, dtype=dtype), torch.randn(2 * n, 4, dtype=dtype)
        targets, exists = torch.rand(2 * n, 4), torch.ones(2 * n, dtype=torch.bool)
        for w in (torch.rand(n, dtype=of_weights) for of_weights in DTYPES):
            results = [
                losses.supervised_contrastive(v, labels, weights=w),
                losses.focal_contrastive(v, labels, v, v, weights=w),
                losses.hard_cross_entropy(logits, labels, w),
            ]
            for some in (None, exists):
                results.append(
                    losses.mixed_cross_entropy(
                        logits, labels, mixed, targets, weights=some, sample_weights=w
                    )
                )
            on_cuda(*results)
            assert {loss.shape for loss in results} == {()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_released(n, dtype):
    with fake_cuda():
        features, labels = batch(n, dtype=dtype)
        hp, hn = released.released_pairs(features, labels)
        on_cuda(hp, hn)
        partners, lam = torch.randperm(n), torch.rand(n)
        rows, soft = released.released_mixtures(
            features, F.one_hot(labels, 120).float(), partners, hp, hn, lam, lam
        )
        on_cuda(rows, soft)
        contrastive = released.released_contrastive(rows, soft)
        cross_entropy = released.released_cross_entropy(torch.randn(3 * n, 120, dtype=dtype), soft)
        on_cuda(contrastive, cross_entropy)
        assert contrastive.shape == cross_entropy.shape == ()


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_head(depth):
    with fake_cuda():
        out = heads.ProjectionHead(8, 4, depth)(torch.randn(5, 8))
        on_cuda(out)
        assert out.shape == (5, 4)


OBJECTIVES = {
    "ce": lambda: objectives.CrossEntropyLoss(),
    "ce_manifold": lambda: objectives.CrossEntropyLoss(num_classes=4, mixing="manifold"),
    "ce_con": lambda: objectives.CEContrastiveLoss(8, projection_dim=4),
    "core": lambda: objectives.CoreTuningLoss(8, 4, projection_dim=4),
    "core_generated": lambda: objectives.CoreTuningLoss(8, 4, positives="generated"),
    "core_sharp": lambda: objectives.CoreTuningLoss(8, 4, smooth_classifier=False, focal=False),
    "core_manifold": lambda: objectives.CoreTuningLoss(8, 4, mixing="manifold"),
    "core_none": lambda: objectives.CoreTuningLoss(8, 4, mixing="none"),
    "released": lambda: released.ReleasedCoreTuningLoss(8, 4),
}


CALLS = [(name, weighted) for name in OBJECTIVES for weighted in (False, True)]
CALLS.remove(("released", True))  # the release has no weights


@pytest.mark.parametrize(("name", "weighted"), CALLS)
@pytest.mark.parametrize("n", [1, 2, 6])
def test_objectives(name, weighted, n):
    with fake_cuda():
        objective, classifier = OBJECTIVES[name](), nn.Linear(8, 4, bias=False)
        features, labels = batch(n)
        weights = torch.rand(n) if weighted else None
        terms = objective(features.requires_grad_(), labels, classifier, weights=weights)
        on_cuda(*terms)
        assert terms.logits.shape == (n, 4)
        assert terms.total.requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_under_cuda_autocast(name):
    with fake_cuda():
        objective, classifier = OBJECTIVES[name](), nn.Linear(8, 4, bias=False)
        features, labels = batch(dtype=torch.bfloat16)
        with cuda_autocast():
            assert classifier(torch.randn(2, 8)).dtype == torch.bfloat16  # it is on
            terms = objective(features, labels, classifier)
        on_cuda(*terms)
        assert terms.total.dtype == terms.cross_entropy.dtype == torch.float32


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_in_bfloat16(name):
    with fake_cuda():
        # Fake parameters cannot be converted in place, so they are made in this type.
        torch.set_default_dtype(torch.bfloat16)
        try:
            objective, classifier = OBJECTIVES[name](), nn.Linear(8, 4, bias=False)
        finally:
            torch.set_default_dtype(torch.float32)
        features, labels = batch(dtype=torch.bfloat16)
        terms = objective(features, labels, classifier)
        on_cuda(*terms)
        assert terms.total.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_of_other_dtypes(name, dtype):
    with fake_cuda():
        objective, classifier = OBJECTIVES[name](), nn.Linear(8, 4, bias=False)
        features, labels = batch()
        terms = objective(features, labels.to(dtype), classifier)
        on_cuda(*terms)


# Whatever is wrong is found by shape, dtype and device, without a look at a value.
WRONG = {
    "features (n,d,1,1)": lambda z, y: (z[..., None, None], y, None),
    "features of integers": lambda z, y: (z.long(), y, None),
    "labels (n,1)": lambda z, y: (z, y[:, None], None),
    "labels of floats": lambda z, y: (z, y.float(), None),
    "labels on the CPU": lambda z, y: (z, torch.zeros(6, dtype=torch.long, device="cpu"), None),
    "no sample": lambda z, y: (z[:0], y[:0], None),
    "weights (n,1)": lambda z, y: (z, y, torch.rand(6, 1)),
    "weights on the CPU": lambda z, y: (z, y, torch.rand(6, device="cpu")),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_does_not_fit_is_refused(name, wrong):
    with FakeTensorMode(), torch.device("cuda"):
        objective, classifier = OBJECTIVES[name](), nn.Linear(8, 4, bias=False)
        features, labels, weights = WRONG[wrong](*batch())
        with CudaOnly(), pytest.raises(UserError):
            objective(features, labels, classifier, weights=weights)


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("ce", "ce_con")])
def test_a_classifier_of_other_classes_is_refused(name):
    with fake_cuda():
        objective, classifier = OBJECTIVES[name](), nn.Linear(8, 5, bias=False)
        with pytest.raises(UserError, match=r"logits have shape .*, 5\): expected .*, 4\)"):
            objective(*batch(), classifier)


def source_problems(source):
    """Names of host synchronisations, and open-ended loops, in a source."""
    banned = {"item", "cpu", "numpy", "tolist", "nonzero", "argwhere", "masked_select"}
    problems = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in banned:
            problems.append(f"line {node.lineno}: .{node.attr}")
        if isinstance(node, ast.While):
            problems.append(f"line {node.lineno}: while")
    return problems


@pytest.mark.parametrize("module", MODULES)
def test_source_has_no_synchronisation(module):
    source = inspect.getsource(importlib.import_module(f"core_tuning.{module}"))
    assert source_problems(source) == []


def test_the_source_check_sees_a_synchronisation():
    assert source_problems("def f(x):\n    return x.sum().item()\n") == ["line 2: .item"]


@pytest.mark.parametrize(("name", "weighted"), CALLS)
def test_operations_do_not_grow_with_the_batch(name, weighted):
    """No Python loop over samples: as many operations are dispatched for any n above 4."""

    class Count(TorchDispatchMode):
        number = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.number += 1
            return func(*args, **(kwargs or {}))

    counts = []
    objective = OBJECTIVES[name]()
    for n in (8, 24):
        weights = torch.rand(n) if weighted else None
        with Count() as count:
            classifier = nn.Linear(8, 4, bias=False)
            objective(torch.randn(n, 8), torch.arange(n) % 3, classifier, weights=weights)
        counts.append(count.number)
    assert counts[0] == counts[1]
