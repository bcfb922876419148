"""The view of a model that an evaluation attacks: also of one that gives no gradient at all."""

from __future__ import annotations

import torch
from torch import Tensor

from .user_module import OwnModule
from .view import AttackView


class EvaluationView(AttackView):
    """An `AttackView` in float32 that survives a model which cuts the graph.

    A model that leaves torch or detaches gets gradients of zero in place of an exception, and all
    of them count as zero: an evaluation has to report it, not to fail on it. A user's module is
    attacked as it is, because copying, folding and another memory format may each break it.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(model, as_is=any(isinstance(m, OwnModule) for m in model.modules()))
        self.is_cut = False

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1]: float32 logits (n, K)."""
        logits = super().forward(images)
        if images.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            self.is_cut = True
            logits = logits + 0 * images.flatten(1).sum(1, keepdim=True)
        return logits

    def zero_gradient_share(self) -> Tensor:
        """Share in [0, 1] of gradients that were zero since `begin_count`; 1 for a cut graph."""
        share = super().zero_gradient_share()
        return torch.ones_like(share) if self.is_cut else share
