"""Inner products of a batch's rows with each other."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Strips of rows that the product is cut into; four do 5/8 of the full product's work.
STRIPS = 4


def self_similarity(rows: Tensor) -> Tensor:
    """Return S = V V^T, (n, n), of rows V (n, d), differentiable.

    S is symmetric: what lies below its diagonal is copied, and one product (G + G^T) V gives the
    gradient where autograd would compute two.
    """
    return _SelfSimilarity.apply(rows)


class _SelfSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        n = len(rows)
        height = max(1, -(-n // STRIPS))
        products = rows.new_empty(n, n)
        for start in range(0, n, height):
            end = min(start + height, n)
            torch.mm(rows[start:end], rows[start:].T, out=products[start:end, start:])
            products[end:, start:end] = products[start:end, end:].T
        return products

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        (rows,) = ctx.saved_tensors
        return (gradient + gradient.T) @ rows
