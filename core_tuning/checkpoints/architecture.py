"""Guesses an encoder's architecture from the names and shapes of its tensors."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..encoders import SMALL_ENCODERS, TORCHVISION_ENCODERS, build_encoder

VIT_SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}

Shapes = dict[str, tuple[int, ...]]


class Architecture(NamedTuple):
    """What the tensors look like: in words, as an `--encoder` that they fit, and its width."""

    description: str
    encoder: str | None = None
    features: int | None = None


def guess_architecture(state: Mapping[str, Tensor]) -> Architecture:
    """Guess the architecture of an encoder's tensors.

    `encoder` is given only where every name and shape equals that encoder's.
    """
    shapes = _shapes(state)
    stem, patches = shapes.get("conv1.weight", ()), shapes.get("patch_embed.proj.weight", ())
    if "layer1.0.conv1.weight" in shapes and len(stem) == 4:
        last, kind = "bn2", "basic"
        if "layer1.0.bn3.weight" in shapes:
            last, kind = "bn3", "bottleneck"
        features = next(iter(shapes.get(f"layer4.0.{last}.weight", ())), None)
        name = _equal((*TORCHVISION_ENCODERS, *SMALL_ENCODERS), shapes)
        if name is not None:
            dashed = re.sub(r"(t)(\d)", r"\1-\2", name.replace("_", " "), count=1)
            title = dashed.replace("resnet", "ResNet").replace("resnext", "ResNeXt")
            return Architecture(title, name, features)
        blocks = ", ".join(str(_count(shapes, f"layer{number}.")) for number in range(1, 5))
        described = f"ResNet of {blocks} {kind} blocks, stem {'x'.join(map(str, stem))}"
        return Architecture(described, None, features)
    if "blocks.0.attn.qkv.weight" in shapes and len(patches) == 4:
        width, _, patch, _ = patches
        described = f"ViT of patch {patch}, width {width}, depth {_count(shapes, 'blocks.')}"
        return Architecture(described, _equal(_vit_names(shapes, width, patch), shapes), width)
    return Architecture("network of unknown architecture")


def advise(encoder: str | None, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Say what to pass instead where tensors (state) do not fit an encoder (own)."""
    if encoder is not None:
        return f"pass `--encoder {encoder}`"
    stem = state.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] != 3:
        return (
            f"its stem takes {stem.shape[1]} of an image's 3 channels, so pass another checkpoint"
        )
    if stem is not None and stem.ndim == 4 and stem.shape[2] == 3:
        return "its stem is a 3x3 convolution for small images, so pass another checkpoint"
    if any(re.match(r"patch_embed\.proj\.\d", name) for name in state):
        return "its patches come from several convolutions, so pass another checkpoint"
    if any(
        "pos_embed" in name and state[name].shape != own[name].shape
        for name in own.keys() & state.keys()
    ):
        return "pass the timm encoder of the image size that it was trained at"
    return "pass the `--encoder timm:NAME` that it was trained with, or another checkpoint"


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {
        name: tuple(value.shape)
        for name, value in state.items()
        if not name.endswith("num_batches_tracked")
    }


@functools.cache
def _encoder_shapes(name: str) -> Shapes:
    with torch.device("meta"):
        return _shapes(build_encoder(name).state_dict())


def _equal(names: Iterable[str], shapes: Shapes) -> str | None:
    return next((name for name in names if _encoder_shapes(name) == shapes), None)


def _count(shapes: Shapes, stem: str) -> int:
    """Count the numbers that follow a stem such as `layer1.` in the names."""
    return len({name.removeprefix(stem).split(".")[0] for name in shapes if name.startswith(stem)})


def _vit_names(shapes: Shapes, width: int, patch: int) -> Iterator[str]:
    import timm

    positions = (0, 0, *shapes.get("pos_embed", ()))[-2]
    side = math.isqrt(positions) * patch  # a class token more does not reach the next square
    for family in ("vit", "deit"):
        for kind in ("", "_distilled"):
            name = f"{family}_{VIT_SIZES.get(width)}{kind}_patch{patch}_{side}"
            if timm.is_model(name):
                yield f"timm:{name}"
