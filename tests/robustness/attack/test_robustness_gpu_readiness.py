"""The attack's view on fake CUDA tensors: a synchronisation or a device mix-up raises.

What is run are the view's forward pass, what it does with a gradient, and a step. Autograd's engine
needs a real GPU for the backward pass between them; torchattacks' loop and the check of its
result, which waits for the device on purpose, are not run either.
"""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core_tuning.encoders import ImageEncoder, SmallResNet
from core_tuning.robustness.attack.view import AttackView


class CudaOnly(TorchDispatchMode):
    """Refuses a tensor of some size made on, or copied to, the CPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" and tensor.dim():
                raise AssertionError(f"{func} made a tensor on the CPU")
        return out


def small_model():
    encoder = SmallResNet(widths=(4, 8), blocks=1)
    return nn.Sequential(ImageEncoder(encoder), nn.Linear(8, 4, bias=False))


@contextmanager
def fake_cuda(make=nn.Identity):
    """Yield what `make` makes; only the making may copy constants from the CPU."""
    with FakeTensorMode(), torch.device("cuda"):
        made = make()
        with CudaOnly():
            yield made


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_view_and_what_it_does_with_a_gradient(monkeypatch, precision, channels_last):
    with fake_cuda(lambda: (small_model(), small_model())) as (model, twin):
        # Fake tensors cannot be copied deeply.
        copying = SimpleNamespace(deepcopy=lambda _: twin)
        monkeypatch.setattr("core_tuning.robustness.attack.view.copy", copying)
        view = AttackView(model, precision=precision, channels_last=channels_last)
        if precision != "fp32":
            # torch.autocast turns itself off where there is no GPU; this does not.
            monkeypatch.setattr(torch, "autocast", cuda_autocast)
        view.refresh()
        images = torch.rand(5, 3, 16, 16).requires_grad_()
        for _ in range(2):
            logits = view(images)
            assert logits.requires_grad
            gradient = torch.randn_like(images, memory_format=torch.channels_last)
            gradient = view._receive(gradient, 1.0 if precision == "fp32" else 256.0)
            images = (images + gradient.sign() / 255).clamp(0, 1).detach().requires_grad_()
        share = view.zero_gradient_share()
        assert logits.shape == (5, 4) and share.shape == ()
        for tensor in (logits, gradient, share):
            assert tensor.device.type == "cuda" and tensor.dtype == torch.float32
        assert gradient.is_contiguous()
        if precision != "fp16":
            view.begin_count()  # waits for the device under fp16 alone


@contextmanager
def cuda_autocast(device_type, dtype=None, enabled=True):
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", enabled)
    if dtype is not None:
        torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])
        torch.clear_autocast_cache()


def test_the_harness_notices_a_wait():
    with fake_cuda():
        x = torch.rand(3)
        with pytest.raises(Exception):  # noqa: B017 — each mistake has its own exception
            bool(x.sum() > 0)
        with pytest.raises(AssertionError):
            x.cpu()
