"""Small models whose batch norms have statistics, and batches of images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core_tuning.encoders import ImageEncoder, SmallResNet


def randomise_norms(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights far from those they start with."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    noise = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                    tensor.data.copy_(0.5 + noise)
    return model


@pytest.fixture
def small_model() -> nn.Module:
    """A SmallResNet of a few channels and 4 classes, in training mode."""
    torch.manual_seed(0)
    encoder = SmallResNet(widths=(4, 8), blocks=1)
    model = nn.Sequential(ImageEncoder(encoder), nn.Linear(8, 4, bias=False))
    return randomise_norms(model).train()


@pytest.fixture
def batch() -> Callable[..., tuple[Tensor, Tensor]]:
    """n images (n, 3, side, side) in [0, 1] and labels below 4."""

    def make(n: int = 6, side: int = 12) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(2)
        return torch.rand(n, 3, side, side, generator=generator), torch.arange(n) % 4

    return make
