"""Checks of the tensors that the loss core is given, with the sentence that a user reads.

Shapes, dtypes and devices are checked everywhere. Values are looked at where that waits for
nothing: on the CPU, outside torch.compile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import UserError


class Dtypes(NamedTuple):
    """Dtypes that an argument may have, how to say so, and the method that converts to them."""

    allowed: tuple[torch.dtype, ...]
    expected: str
    method: str


_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
FLOATING = Dtypes(_FLOATS, "float32, float64, float16 or bfloat16", "float")
INTEGER = Dtypes(_INTEGERS, "int64 or another integer dtype", "long")
REAL = Dtypes((*_FLOATS, *_INTEGERS, torch.bool), "a real dtype", "float")
BOOLEAN = Dtypes((torch.bool,), "bool", "bool")


class Spec(NamedTuple):
    """What an argument must be: one letter for each axis, of one size wherever it stands."""

    axes: str
    dtypes: Dtypes
    hint: str
    optional: bool = False


FEATURES = Spec("nd", FLOATING, "give pooled features, a row for each sample")
EMBEDDINGS = Spec("nc", FLOATING, "give a row for each sample, as the projection head does")
LABELS = Spec("n", INTEGER, "give one class index for each sample, not one-hot rows")
LOGITS = Spec("nK", FLOATING, "give a row for each sample and a column for each class")
CLASSIFIED = Spec("nK", FLOATING, "make the classifier for these classes and rows of features")
TARGETS = Spec("nK", FLOATING, "give one-hot or soft targets, a row for each sample")
MIXED_LOGITS = Spec("mK", FLOATING, "give a row for each generated sample")
MIXED_TARGETS = Spec("mK", FLOATING, "give soft targets, a row for each generated sample")
MIXED_EMBEDDINGS = Spec("mc", FLOATING, "give a row for each sample, generated ones too")
FACTORS = Spec("n", FLOATING, "give one mixing factor for each sample, as sample_lambda does")
UNIFORM = Spec("n", FLOATING, "give one random number for each sample", optional=True)
PARTNERS = Spec("n", INTEGER, "give one index for each sample, as mine_pairs does")
WEIGHTS = Spec("n", REAL, "give one weight for each sample", optional=True)
MIXED_WEIGHTS = Spec("m", REAL, "give one weight for each generated sample", optional=True)
GENERATED = Spec("nc", FLOATING, "give one generated sample for each sample", optional=True)
HAS_NEGATIVE = Spec("n", BOOLEAN, "give True or False for each sample", optional=True)


def check_tensors(
    *,
    sizes: Mapping[str, int] | None = None,
    **arguments: tuple[object, Spec],
) -> None:
    """Check shapes, dtypes and devices of arguments, each a value and what it must be.

    Args:
        sizes: of axes, where they are known from elsewhere.
        arguments: by their names; all tensors must be on the device of the first.

    Raises:
        UserError: one is no tensor, or of another shape, dtype or device.
    """
    known = dict(sizes or {})
    device, first = None, ""
    for name, (value, spec) in arguments.items():
        if value is None and spec.optional:
            continue
        if not isinstance(value, Tensor):
            raise UserError(
                f"{_is(name)} of type {type(value).__name__}: expected a tensor; {spec.hint}."
            )
        shape = value.shape
        fits = len(shape) == len(spec.axes)
        for axis, size in zip(spec.axes, shape, strict=fits):
            fits = fits and known.setdefault(axis, size) == size
        if not fits:
            raise UserError(
                f"{_has(name)} shape {tuple(shape)}: expected {_expected(spec.axes, known)}; "
                f"{spec.hint}."
            )
        if 0 in shape:
            raise UserError(
                f"{_has(name)} shape {tuple(shape)}: expected one sample or more; leave out "
                "empty batches."
            )
        if value.dtype not in spec.dtypes.allowed:
            raise UserError(
                f"{_has(name)} dtype {_plain(value.dtype)}: expected {spec.dtypes.expected}; "
                f"convert with {name}.{spec.dtypes.method}()."
            )
        if device is None:
            device, first = value.device, name
        elif value.device != device:
            raise UserError(
                f"{_is(name)} on {value.device} and {first} on {device}: expected one device; "
                f"move with {name}.to('{device}')."
            )


def check_values(name: str, tensor: Tensor, low: float, high: float, expected: str) -> None:
    """Check low <= tensor <= high where that waits for nothing; NaN fails.

    On a GPU, in torch.compile and of tensors without values nothing is checked.

    Raises:
        UserError: a value is out of range.
    """
    if torch.compiler.is_compiling() or type(tensor) is not Tensor or tensor.device.type != "cpu":
        return
    ends = (tensor.detach() if tensor.requires_grad else tensor).aminmax()
    least, most = float(ends.min), float(ends.max)
    if not (least >= low and most <= high):
        raise UserError(f"{name} reach from {least:g} to {most:g}: expected {expected}.")


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Check on the CPU that labels are class indices; a GPU's kernels assert it themselves."""
    check_values("labels", labels, 0, num_classes - 1, f"class indices from 0 to {num_classes - 1}")


def _is(name: str) -> str:
    return f"{name} {'are' if name.endswith('s') else 'is'}"


def _has(name: str) -> str:
    return f"{name} {'have' if name.endswith('s') else 'has'}"


def _expected(axes: str, known: Mapping[str, int]) -> str:
    """Write a shape, of sizes where they are known and of letters elsewhere."""
    sizes = ", ".join(str(known.get(axis, axis)) for axis in axes)
    return f"({sizes},)" if len(axes) == 1 else f"({sizes})"


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
