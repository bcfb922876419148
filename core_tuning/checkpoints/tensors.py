"""Loads tensors into modules, and refuses those that no trained network has.

What is refused would load, or stop with a traceback, and training would then blame the learning
rate: tensors without values or numbers in them, of whole numbers, that are not finite, and
matrices and filters of one value. Vectors may be constant: the scale and shift of a normalisation
that was just initialised, a last scale of 0 in a residual block, a LayerScale; so may whatever
has one dimension alone above 1, such as a class token (1, 1, d) or a gain (c, 1, 1, 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, shown

# Numbers in other types of fewer bits are quantised, and those in whole numbers are not weights.
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# What is surely made of real numbers where the encoder that it is of is not known.
_REAL = re.compile(r"(^|\.)(weight|bias|running_mean|running_var)$")
# Buffers that do not change what an encoder computes, or that it computes for itself.
COMPUTED_BUFFER = re.compile(r"(^|\.)(num_batches_tracked|relative_position_index|attn_mask)$")


def load_tensors(
    module: nn.Module, tensors: Mapping[str, Any], source: object, what: str, advice: str
) -> None:
    """Load tensors into a module, all of them or none.

    Args:
        module: what has the same names and shapes.
        tensors: by the names of its state dict; float16, bfloat16 and float64 are converted, and
            what is no tensor is left out.
        source: how messages name the file.
        what: how they name the module.
        advice: what to do where names or shapes differ, as the end of a sentence.

    Raises:
        UserError: a tensor is missing, left over, of another shape or of a kind that is refused.
    """
    own = module.state_dict()
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    check_kinds(tensors, source, own)
    missing = [name for name in own if name not in tensors]
    foreign = [name for name in tensors if name not in own]
    reshaped = [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    for fault, names in (("lacks", missing), ("has besides", foreign), ("reshapes", reshaped)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"'{source}' does not fit {what}: it {fault} {shown(names[0])}{more}; {advice}."
            )
    check_values(tensors, source, own)
    module.load_state_dict(tensors)


def check_kinds(
    tensors: Mapping[str, Tensor], source: object, own: Mapping[str, Tensor] | None = None
) -> None:
    """Raise a UserError at the first tensor that does not hold real numbers as weights do.

    Args:
        tensors: by name.
        source: how messages name the file.
        own: those of the network that they are for, where it is known: what it does not have is
            not looked at, and where it has whole numbers they may be whole.
    """
    for name, value in _learned(tensors, own).items():
        real = _REAL.search(name) if own is None else own[name].is_floating_point()
        fault = _kind_fault(value, is_real=bool(real))
        if fault is not None:
            raise _refused(source, name, fault)


def check_values(
    tensors: Mapping[str, Tensor], source: object, own: Mapping[str, Tensor] | None = None
) -> None:
    """Raise a UserError at the first tensor with numbers that no trained network has.

    The arguments are those of `check_kinds`, which is called before.
    """
    for name, value in _learned(tensors, own).items():
        if value.dtype in FLOATS and value.numel():
            fault = _value_fault(value, torch.float32 if own is None else own[name].dtype)
            if fault is not None:
                raise _refused(source, name, fault)


def _learned(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    return {
        name: value
        for name, value in tensors.items()
        if (own is None or name in own) and not COMPUTED_BUFFER.search(name)
    }


def _kind_fault(value: Tensor, *, is_real: bool) -> str | None:
    if value.is_meta:
        return "which has no values (it is on the device meta)"
    if value.is_quantized or value.is_nested or value.layout != torch.strided:
        layout = str(value.layout).removeprefix("torch.")
        kind = "quantised" if value.is_quantized else "nested" if value.is_nested else layout
        return f"which is {kind}"
    if is_real and value.dtype not in FLOATS:
        return f"which is of the type {str(value.dtype).removeprefix('torch.')}"
    return None


def _value_fault(value: Tensor, dtype: torch.dtype) -> str | None:
    is_matrix = sum(size > 1 for size in value.shape) > 1
    # What was expanded is looked at once, however large a small file makes it.
    for dim, step in enumerate(value.stride()):
        value = value.narrow(dim, 0, 1) if step == 0 else value
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "whose parts overlap"
    low, high = (bound.to(dtype) for bound in value.aminmax())
    if not bool(low.isfinite() & high.isfinite()):
        return "which is not finite"
    return f"which is {low.item():g} everywhere" if is_matrix and bool(low == high) else None


def _refused(source: object, name: str, fault: str) -> UserError:
    floats = ", ".join(str(dtype).removeprefix("torch.") for dtype in FLOATS)
    return UserError(
        f"'{source}' has the tensor {shown(name)}, {fault}: expected trained weights, dense and "
        f"finite, in one of {floats}; pass another checkpoint, or save the weights again as they "
        "were trained."
    )
