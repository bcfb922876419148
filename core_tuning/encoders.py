"""Encoders: torchvision and timm models without their classification head.

An encoder maps normalised images (n, 3, h, w) to pooled features (n, d) and keeps the parameter
names of its library, so that a fine-tuned encoder loads into a plain torchvision or timm model.
"""

from __future__ import annotations

import difflib
import inspect
import re
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from .errors import UserError, reason, shown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TORCHVISION_ENCODERS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152",
    "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d",
)  # fmt: skip
SMALL_ENCODER = "small_resnet"
TIMM = "timm:"
# Widths of the four stages of `SmallResNet`.
SMALL_ENCODERS = {SMALL_ENCODER: (16, 32, 64, 128), "small_resnet_2x": (32, 64, 128, 256)}


class Normalisation(NamedTuple):
    """Per-channel mean and standard deviation of images in [0, 1] that an encoder expects."""

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


NO_NORMALISATION = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class SmallResNet(nn.Module):
    """A ResNet-18 of a quarter of the width, for images of 32 to 64 pixels: 0.7 M parameters.

    Its stem is one 3x3 convolution of stride 2 in place of the 7x7 one and the max pooling, which
    would leave a 48-pixel image two pixels wide. Of half ResNet-18's width it has 2.8 M.

    Args:
        widths: channels of the stages; the last is the width of the features.
        blocks: of a stage.
    """

    def __init__(
        self, widths: tuple[int, ...] = SMALL_ENCODERS[SMALL_ENCODER], blocks: int = 2
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.stages = [f"layer{number}" for number in range(1, len(widths) + 1)]
        for name, before, width in zip(self.stages, (widths[0], *widths), widths, strict=False):
            inner = [BasicBlock(width, width) for _ in range(blocks - 1)]
            self.add_module(name, nn.Sequential(_first_block(before, width), *inner))
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Pool features (n, d) from normalised images (n, 3, h, w)."""
        x = self.relu(self.bn1(self.conv1(images)))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))


def _first_block(channels: int, width: int) -> BasicBlock:
    if channels == width:
        return BasicBlock(channels, width)
    downsample = nn.Sequential(
        nn.Conv2d(channels, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
    )
    return BasicBlock(channels, width, stride=2, downsample=downsample)


class ImageEncoder(nn.Module):
    """Normalises images in [0, 1] and encodes them.

    Args:
        encoder: maps normalised images (n, 3, h, w) to features (n, d).
        normalisation: what the encoder's pre-training used.
        name: by which `build_encoder` builds the same encoder again; a run states it.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        normalisation: Normalisation = Normalisation(),  # noqa: B008 - immutable
        name: str = "",
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.name = name
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, 3, h, w) in [0, 1] as features (n, d)."""
        return self.encoder((images - self.mean) / self.std)


def build_encoder(name: str) -> nn.Module:
    """Build an encoder with random weights.

    Args:
        name: a torchvision ResNet or ResNeXt, `small_resnet`, `small_resnet_2x` (of twice the
            width), `timm:NAME`, or `timm:NAME,num_heads=N` for a vision transformer with another
            number of attention heads than timm's.

    Returns:
        A module from normalised images (n, 3, h, w) to features (n, d).

    Raises:
        UserError: no encoder has that name (the message gives the nearest ones), or it cannot
            have that number of heads.
    """
    if name in SMALL_ENCODERS:
        return SmallResNet(SMALL_ENCODERS[name])
    if name in TORCHVISION_ENCODERS:
        encoder = torchvision.models.get_model(name, weights=None)
        encoder.fc = nn.Identity()
        return encoder
    if name.startswith(TIMM):
        return _build_timm(name)
    known = [*SMALL_ENCODERS, *TORCHVISION_ENCODERS]
    nearest = difflib.get_close_matches(name, known, n=1) or ["resnet50"]
    raise UserError(
        f"Unknown encoder '{shown(name)}': expected one of {', '.join(known)} or timm:NAME; "
        f"did you mean '{nearest[0]}'?"
    )


def _build_timm(name: str) -> nn.Module:
    import timm

    base, heads = split_heads(name)
    base = base.removeprefix(TIMM)
    if not timm.is_model(base):
        nearest = difflib.get_close_matches(base, timm.list_models(), n=3)
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        raise UserError(f"timm {timm.__version__} has no model '{shown(base)}'{hint}.")
    why = ""
    try:
        encoder = timm.create_model(base, pretrained=False, num_classes=0, num_heads=heads)
        if heads is not None and hidden_heads(encoder) != heads:
            why = "its weights show how many it has"
    except (TypeError, ValueError, AssertionError, RuntimeError, ArithmeticError) as error:
        if heads is None:
            raise
        why = reason(error)
    if why:
        raise UserError(
            f"The encoder '{name}' cannot be built with that number of heads ({why}): expected a "
            "vision transformer and a divisor of its width; leave out num_heads for timm's own."
        )
    if not isinstance(_timm_settings(encoder).get("classifier", ""), str):
        raise UserError(
            f"timm's '{base}' has several classification layers: expected a model with one, such "
            "as its form without distillation."
        )
    return encoder


def split_heads(name: str) -> tuple[str, int | None]:
    """Split the name of an encoder from the number of attention heads that it asks for.

    Raises:
        UserError: what follows the name is something else.
    """
    base, comma, option = name.partition(",")
    if not comma:
        return name, None
    match = re.fullmatch(r"num_heads=([1-9][0-9]{0,3})", option)
    if match is None:
        raise UserError(
            f"The encoder '{shown(name)}' has the option '{shown(option)}': expected "
            "timm:NAME,num_heads=N with a whole number N of at least 1."
        )
    return base, int(match[1])


def with_heads(name: str, encoder: nn.Module, heads: int | None) -> str:
    """Name the encoder that has this number of heads, unless its name asks for one already.

    Args:
        name: of `encoder`.
        encoder: as `build_encoder` built it.
        heads: None where nothing is known of them.
    """
    base, given = split_heads(name)
    if heads is None or given is not None or hidden_heads(encoder) in (None, heads):
        return name
    return f"{base},num_heads={heads}"


def hidden_heads(encoder: nn.Module) -> int | None:
    """Return the attention heads of a transformer whose tensors do not show how many it has.

    Two such encoders with different numbers load the same checkpoint and give other features.
    None for all other encoders.
    """
    found = set()
    for module in encoder.modules():
        heads = getattr(module, "num_heads", None)
        if isinstance(heads, int):
            found.add(None if _shows_heads(module) else heads)
    takes_number = "num_heads" in inspect.signature(type(encoder)).parameters
    return found.pop() if takes_number and len(found) == 1 else None


def assumed_heads(encoder: nn.Module) -> str:
    """Say that an encoder's attention heads are assumed, or "" where its tensors show them."""
    heads = hidden_heads(encoder)
    if heads is None:
        return ""
    settings = _timm_settings(encoder)
    name = f"{TIMM}{settings.get('architecture', 'NAME')}"
    return (
        f"assumed {heads} attention heads, timm's number, because the tensors do not show it; "
        f"pass --encoder {name},num_heads=N if there were others"
    )


def _shows_heads(attention: nn.Module) -> bool:
    shapes = [parameter.shape for parameter in attention.parameters()]
    # Of the embedding, of which all other sizes are multiples where heads do not count.
    width = max((shape[-1] for shape in shapes if len(shape) == 2), default=0)
    return not width or any(size % width for shape in shapes for size in shape)


@torch.no_grad()
def feature_dim(
    encoder: nn.Module, image_size: tuple[int, int] | None = None, *, trained: bool = False
) -> int:
    """Return d, the width of the features, by encoding a blank image on the CPU.

    timm's `num_features` is another number where the head has a hidden layer.

    Args:
        encoder: normalised images (n, 3, h, w) to features (n, d).
        image_size: (h, w) of the images that it is to encode; by default any that it takes.
        trained: whether its weights are a checkpoint's; noise is then encoded too, and the
            features are looked at.

    Raises:
        UserError: it fails on images of that size, or its features are no vectors; of a trained
            one, they are not finite, or the same for both images, as where weights carry nothing.
    """
    settings = _timm_settings(encoder)
    own = tuple(settings.get("input_size", (3, 64, 64))[1:])
    size = own if image_size is None else image_size
    images = torch.zeros(1 + trained, 3, *size)
    if trained:
        images[1].normal_(generator=torch.Generator().manual_seed(0))
    was_training = encoder.training
    encoder.eval()
    try:
        features = encoder(images)
    # What an encoder raises where images have a size that it does not take, it alone knows.
    except Exception as error:
        takes = f"--image-size {own[0]}" if "input_size" in settings else "another --image-size"
        raise UserError(
            f"The encoder fails on images of {size[0]}x{size[1]} pixels ({reason(error)}): pass "
            f"{takes}, or another --encoder."
        ) from error
    finally:
        encoder.train(was_training)
    if features.ndim != 2:
        raise UserError(
            f"The encoder gives features of the shape {tuple(features.shape)}: expected (images, "
            "d); pass another --encoder."
        )
    if trained and not (features.isfinite().all() and (features[0] != features[1]).any()):
        raise UserError(
            "The encoder's features of a blank image and of noise are the same, or are not finite: "
            "expected trained weights; pass another --pretrained checkpoint."
        )
    return features.shape[1]


def classifier_name(encoder: nn.Module) -> str:
    """Return the name that the encoder's library gives its classification layer."""
    settings = _timm_settings(encoder)
    return settings.get("classifier") or ("head" if settings else "fc")


def _timm_settings(encoder: nn.Module) -> dict[str, Any]:
    """What timm knows of an encoder; empty for any other's."""
    settings: dict[str, Any] = vars(encoder).get("pretrained_cfg") or {}
    return settings
