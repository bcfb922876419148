"""A copy of a model made to be attacked: only its input's gradient is ever needed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError
from core_tuning.precision import at_least_float32
from core_tuning.training.learner import Learner

from .folding import Pair, find_pairs, fold, make_room

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
        fold: fold batch norms.
        channels_last: memory format of the copy's convolutions and activations.
        precision: "fp32", or "bf16" or "fp16" for autocast; fp16 scales the loss.
        compile: pass the copy through torch.compile.

    Raises:
        UserError: an unknown precision.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        fold: bool = True,
        channels_last: bool = True,
        precision: str = "fp32",
        compile: bool = False,
    ) -> None:
        super().__init__()
        if precision not in DTYPES:
            raise UserError(
                f"The attack's precision is '{precision}': expected one of {', '.join(DTYPES)}."
            )
        self.precision = precision
        self.channels_last = channels_last
        self.loss_scale = FIRST_LOSS_SCALE if precision == "fp16" else 1.0
        self._looked_at = 0
        # (2,) of the gradients looked at: without use, and of these the not finite; on the device.
        self._faults: Tensor | None = None
        self._sources: _Sources | None = None
        if any(getattr(module, "attacked_as_is", False) for module in model.modules()):
            self.channels_last = False
            # Not one of this module's own: whoever changes or checks their modes leaves it alone.
            object.__setattr__(self, "model", model)
            self.eval()
            return
        if isinstance(model, Learner):
            model = nn.Sequential(model.image_encoder, model.classifier)
        self.model = copy.deepcopy(model).eval()
        pairs = find_pairs(self.model) if fold else []
        self._sources = _Sources(model, self.model, pairs)
        make_room(self.model, pairs)
        for module in self.model.modules():
            self._lay_out(module)
        self.model.requires_grad_(False)
        self.eval()
        self.refresh()
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
        if self._sources is not None:
            self._sources.copy()

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
    tensors = [*model.parameters(), *model.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


class _Sources:
    """Where the copy's parameters and buffers come from.

    Modules are remembered rather than tensors, which moving or loading a model may replace; and
    they are kept out of the copy's own modules, or its state would hold the model's too.
    """

    def __init__(self, model: nn.Module, copied: nn.Module, pairs: list[Pair]) -> None:
        originals = dict(model.named_modules())
        of_copy = {id(module): originals[name] for name, module in copied.named_modules()}
        self.folded = []
        for conv, norm in pairs:
            source_conv, source_norm = of_copy[id(conv)], of_copy[id(norm)]
            assert isinstance(source_conv, nn.Conv2d) and isinstance(source_norm, nn.BatchNorm2d)
            self.folded.append((Pair(source_conv, source_norm), conv))
        in_pairs = {id(module) for pair in pairs for module in pair}
        self.plain = [
            (of_copy[id(module)], module)
            for module in copied.modules()
            if id(module) not in in_pairs
        ]

    def copy(self) -> None:
        for pair, conv in self.folded:
            assert conv.bias is not None
            fold(pair, conv.weight, conv.bias)
        for source, module in self.plain:
            for name, tensor in _own_tensors(module).items():
                tensor.copy_(getattr(source, name))


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    tensors = {**module._parameters, **module._buffers}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
