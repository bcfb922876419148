"""Losses are computed in float32, or in float64 if they are given that, whatever the autocast."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32; leave every other dtype as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` outside autocast, its half-precision tensor arguments cast to float32."""

    def cast(value: Any) -> Any:
        return at_least_float32(value) if isinstance(value, Tensor) else value

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        # Without a tensor the function itself says what is missing.
        device = next((tensor.device.type for tensor in tensors), "cpu")
        with torch.autocast(device, enabled=False):
            return function(
                *(cast(value) for value in args),
                **{name: cast(value) for name, value in kwargs.items()},
            )

    return wrapper


def call_in_own_dtype(module: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """Call `module` on `inputs` cast to the dtype of its parameters, if it has any.

    The objectives mix in float32; a classifier held in bfloat16 still accepts the mixtures.
    """
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return module(inputs if parameter is None else inputs.to(parameter.dtype))
