"""A copy of a model made to be attacked: only its input's gradient is ever needed."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn

from core_tuning.checks import check_choice
from core_tuning.precision import at_least_float32
from core_tuning.training.learner import Learner

from .folding import find_pairs, fold, make_room

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Of the gradient at the logits, per image: the mean over n images of the cross-entropy has
# gradients of at most 1/n, most of which float16 would round to zero on their way back.
FIRST_LOSS_SCALE = 2.0**12


class AttackView(nn.Module):
    """A copy of a model made to be attacked.

    Its parameters need no gradient, it is always in evaluation mode, and batch norms are folded
    into the convolutions before them, which is exact up to rounding and halves the activations
    that a backward pass keeps. The model itself, its modes and its gradients are never touched.

    A model with a module whose `attacked_as_is` is true is attacked itself, in float32: one that
    cannot be copied or traced, or whose modes cannot be relied on. It has to be in evaluation mode.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K). Of a `Learner`, the objective is
            not copied.
        channels_last: memory format of the copy's convolutions and activations.
        precision: "fp32", or "bf16" or "fp16" for autocast; fp16 scales the loss.
        compile: pass the copy through torch.compile.

    Raises:
        UserError: an unknown precision.
    """

    model: nn.Module
    original: nn.Module

    def __init__(
        self,
        model: nn.Module,
        *,
        channels_last: bool = True,
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        super().__init__()
        check_choice("The attack's precision", precision, tuple(DTYPES))
        if isinstance(model, Learner):
            model = nn.Sequential(model.image_encoder, model.classifier)
        self.precision = precision
        self.loss_scale = FIRST_LOSS_SCALE if precision == "fp16" else 1.0
        self._looked_at = 0
        # (2,) of the gradients looked at: without use, and of these the not finite; on the device.
        self._faults: Tensor | None = None
        # Not one of this module's own: whoever changes or checks their modes leaves it alone.
        object.__setattr__(self, "original", model)
        as_is = any(getattr(module, "attacked_as_is", False) for module in model.modules())
        self.channels_last = channels_last and not as_is
        if as_is:
            object.__setattr__(self, "model", model)
        else:
            self.model = copy.deepcopy(model).eval()
            self.pairs = find_pairs(self.model)
            make_room(self.model, self.pairs)
            for module in self.model.modules():
                self._lay_out(module)
            self.model.requires_grad_(False)
            self.refresh()
        self.eval()
        if compile:
            self.model.compile()

    def _lay_out(self, module: nn.Module) -> None:
        """Hold weights as they will be used: autocast casts them anew in every forward pass."""
        if type(module) not in (nn.Conv2d, nn.Linear):
            return
        for name, parameter in module.named_parameters(recurse=False):
            tensor = parameter.detach()
            if self.precision != "fp32":
                tensor = tensor.to(DTYPES[self.precision])
            if self.channels_last and tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=torch.channels_last)
            setattr(module, name, nn.Parameter(tensor, requires_grad=False))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the model's current weights and statistics, in place.

        Nothing is traced or compiled anew. It costs about one pass over the weights.
        """
        if self.model is self.original:
            return
        folded = dict(self.pairs)
        for name, module in self.model.named_modules():
            # Looked up each time, because loading or moving a model may replace its tensors.
            source = self.original.get_submodule(name)
            if name in folded:
                fold(source, self.original.get_submodule(folded[name]), module)
                continue
            own = chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False))
            for each, tensor in own:
                tensor.copy_(getattr(source, each))

    def train(self, mode: bool = True) -> AttackView:
        """Stay in evaluation mode: an attack must not change or use a batch's statistics."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1].

        Returns:
            float32 logits (n, K) (float64 if the model is float64). The gradient that `images`
            get through them is contiguous (n, 3, h, w) of the images' dtype; that of an image is
            zero where it is not finite. A model that cuts the graph, because it leaves torch or
            detaches, gives gradients of zero, which are counted as such.
        """
        entered = images.view_as(images)
        if entered.requires_grad:
            scale = self.loss_scale * (len(images) if self.precision == "fp16" else 1)
            entered.register_hook(lambda gradient: self._receive(gradient, scale))
        if self.channels_last:
            entered = entered.contiguous(memory_format=torch.channels_last)
        half = self.precision != "fp32"
        with torch.autocast(images.device.type, DTYPES[self.precision] if half else None, half):
            logits = self.model(entered)
        logits = at_least_float32(logits)
        if entered.requires_grad and torch.is_grad_enabled() and not logits.requires_grad:
            logits = logits + 0 * entered.flatten(1).sum(1, keepdim=True)
        if self.precision == "fp16" and logits.requires_grad:
            logits.register_hook(lambda gradient: gradient * scale)
        return logits

    def _receive(self, gradient: Tensor, scale: float) -> Tensor:
        """Make an input gradient (n, 3, h, w) what an attack needs, and count."""
        if scale != 1:
            gradient = gradient / scale
        peaks = torch.linalg.vector_norm(gradient, torch.inf, dim=(1, 2, 3))  # (n,)
        finite = peaks < torch.inf  # False for nan too
        faults = torch.stack([(~finite | (peaks == 0)).sum(), (~finite).sum()])
        self._faults = faults if self._faults is None else self._faults + faults
        self._looked_at += len(peaks)
        return torch.where(finite.view(-1, 1, 1, 1), gradient, 0.0).contiguous()

    def begin_count(self) -> None:
        """Start to count gradients anew, and halve fp16's loss scale if one was not finite.

        That waits for the device once, for fp16 alone.
        """
        if self.precision == "fp16" and self._faults is not None and bool(self._faults[1] > 0):
            self.loss_scale = max(1.0, self.loss_scale / 2)
        self._looked_at, self._faults = 0, None

    def zero_gradient_share(self) -> Tensor:
        """Share of (image, attack step) pairs without a usable gradient since `begin_count`.

        Returns:
            A scalar on the device: how many gradients were exactly zero or not finite, divided by
            how many there were; 0 if there were none. Nothing waits for the device.
        """
        if self._faults is None:
            return torch.zeros((), device=device_of(self.model))
        return self._faults[0] / max(1, self._looked_at)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first tensor; the CPU if it has none."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
