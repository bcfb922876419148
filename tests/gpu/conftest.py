"""Tests on a real GPU; without one each is skipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def cuda() -> Iterator[torch.device]:
    """The GPU, computing float32 in float32: TF32 is off."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU")
    convolutions = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield torch.device("cuda")
    torch.backends.cudnn.allow_tf32 = convolutions
