"""bfloat16, and steps on fake CUDA tensors: a synchronisation or a device mix-up raises."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core_tuning.algorithms.algorithm import CLASSES

SIZE = 16


def build(method, **hparams):
    return CLASSES[method](
        (3, SIZE, SIZE), 4, 2, {"checkpoint": "random", "encoder": "small_resnet", **hparams}
    )


def step(algorithm, images, labels):
    """A step of `update`, which reads its loss terms back, without that."""
    features = algorithm.featurizer(images)
    terms = algorithm.objective(features, labels, algorithm.classifier)
    algorithm._descend(terms)
    return terms


class CudaOnly(TorchDispatchMode):
    """Refuses what is made on, or copied to, the CPU, which fake tensors alone allow.

    Scalars may lie there: they travel with the kernel.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs or {})) if isinstance(x, torch.Tensor)]
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                from_cuda = any(x.device.type == "cuda" for x in given)
                if from_cuda or tensor.dim() > 0:
                    raise AssertionError(f"{func} made a tensor on the CPU")
        return out


@contextmanager
def fake_cuda():
    with FakeTensorMode(), torch.device("cuda"):
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


@pytest.fixture
def on_cuda(monkeypatch):
    """Make an algorithm, images and labels in `fake_cuda`.

    torch's engine needs a real GPU for the backward pass, which has no code of ours: in its place
    the gradients are given, and the optimiser's step that follows is fake again.
    """

    def make(method, **hparams):
        algorithm = build(method, **hparams)

        def backward(loss):
            assert loss.requires_grad and loss.device.type == "cuda" and loss.shape == ()
            for parameter in algorithm.parameters():
                parameter.grad = torch.ones_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        return check_cuda(algorithm)

    return make


def check_cuda(algorithm):
    assert all(tensor.device.type == "cuda" for tensor in algorithm.state_dict().values())
    return algorithm, torch.rand(6, 3, SIZE, SIZE), torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", CLASSES)
def test_a_step_waits_for_nothing(on_cuda, method, frozen):
    with fake_cuda():
        algorithm, images, labels = on_cuda(method, freeze_bn=frozen, resnet_dropout=0.1)
        with CudaOnly():
            for _ in range(2):
                terms = step(algorithm, images, labels)
        for term in terms:
            assert term.device.type == "cuda"
        assert terms.logits.shape == (6, 4)
        state = algorithm.optimizer.state[algorithm.classifier.weight]
        assert state["exp_avg"].device.type == "cuda"


@pytest.mark.parametrize("method", CLASSES)
def test_a_step_in_bfloat16(on_cuda, method):
    with fake_cuda():
        algorithm, images, labels = on_cuda(method)
        with CudaOnly(), cuda_autocast():
            features = algorithm.featurizer.encode(images)
            assert algorithm.classifier(features).dtype == torch.bfloat16  # it is on
            terms = algorithm.objective(features, labels, algorithm.classifier)
        assert terms.total.dtype == torch.float32
        with CudaOnly():
            algorithm._descend(terms)
        assert all(parameter.dtype == torch.float32 for parameter in algorithm.parameters())


@pytest.mark.parametrize("wrong", ["loss", "steps"])
def test_the_harness_sees_a_wait(on_cuda, wrong, monkeypatch):
    with fake_cuda():
        algorithm, images, labels = on_cuda("CETuning")
        if wrong == "loss":
            monkeypatch.setattr(nn.Linear, "forward", lambda s, x: x @ s.weight.T * x.sum().item())
        else:
            monkeypatch.setattr(CLASSES["CETuning"], "_decay", lambda s: float(s.steps_taken))
        with (
            CudaOnly(),
            pytest.raises(Exception, match=r"item|data-dependent|made a tensor|_local_scalar"),
        ):
            step(algorithm, images, labels)


def test_bf16_runs_and_keeps_float32_weights(kit, tmp_path):
    half = kit.run(tmp_path / "half", "--precision", "bf16")
    full = kit.run(tmp_path / "full")
    for name in ("model.pkl", "best_iid.pkl"):
        weights = kit.weights(half, name)
        assert {w.dtype for w in weights.values()} == {torch.float32, torch.int64}
    first, second = kit.weights(half), kit.weights(full)
    assert not all(torch.equal(first[name], second[name]) for name in first)
    one, two = kit.records(half), kit.records(full)
    # Weights begin alike, so that the first losses differ by bfloat16's rounding alone.
    assert one[0]["loss"] != two[0]["loss"]
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=0.02)


def test_bf16_is_resumed_bit_for_bit(kit, tmp_path, monkeypatch):
    options = ("--precision", "bf16", "--checkpoint-minutes", 0)
    whole = kit.run(tmp_path / "whole", *options)
    steps = []

    def stop_at_fourth(self):
        steps.append(self.state.step)
        if self.state.step == 4:
            raise KeyboardInterrupt
        return before(self)

    from core_tuning.cli import main
    from core_tuning.training.loop import _Run

    before = _Run.save
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "save", stop_at_fourth)
        assert main(kit.argv(tmp_path / "cut", *options)) == 130
    # An evaluation is saved before as well as after.
    assert list(dict.fromkeys(steps)) == [1, 2, 3, 4]
    kit.run(tmp_path / "cut", *options, "--resume")
    kit.assert_same_run(whole, tmp_path / "cut")
