"""Encoders: torchvision and timm models without their classification head.

An encoder maps normalised images (n, 3, h, w) to pooled features (n, d) and keeps the parameter
names of its library, so that a fine-tuned encoder loads into a plain torchvision or timm model.
"""

from __future__ import annotations

import difflib
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from .errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TORCHVISION_ENCODERS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)
SMALL_ENCODER = "small_resnet"
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
        channels = widths[0]
        for number, width in enumerate(widths, start=1):
            stage = nn.Sequential()
            for _ in range(blocks):
                stage.append(_basic_block(channels, width))
                channels = width
            self.add_module(f"layer{number}", stage)
        self.stages = len(widths)
        self.fc = nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Pool features (n, d) from normalised images (n, 3, h, w)."""
        x = self.relu(self.bn1(self.conv1(images)))
        for number in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.fc(x.mean((2, 3)))


def _basic_block(channels: int, width: int) -> BasicBlock:
    if channels == width:
        return BasicBlock(channels, width)
    downsample = nn.Sequential(
        nn.Conv2d(channels, width, 1, stride=2, bias=False), nn.BatchNorm2d(width)
    )
    return BasicBlock(channels, width, stride=2, downsample=downsample)


class ImageEncoder(nn.Module):
    """Normalises images in [0, 1], optionally resizes them, and encodes them.

    Args:
        encoder: maps normalised images (n, 3, h, w) to features (n, d).
        normalisation: what the encoder's pre-training used.
        resize: side in pixels to which images are resized inside the model (bilinear,
            antialiased); None leaves them as they come.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        normalisation: Normalisation = Normalisation(),  # noqa: B008 - immutable
        resize: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.resize = resize
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Encode images (n, 3, h, w) in [0, 1] as features (n, d)."""
        if self.resize is not None and images.shape[-2:] != (self.resize, self.resize):
            images = nn.functional.interpolate(
                images, size=(self.resize, self.resize), mode="bilinear", antialias=True
            )
        return self.encoder((images - self.mean) / self.std)


def build_encoder(name: str) -> nn.Module:
    """Build an encoder with random weights.

    Args:
        name: a torchvision ResNet or ResNeXt, `small_resnet`, `small_resnet_2x` (of twice the
            width), or `timm:NAME`.

    Returns:
        A module from normalised images (n, 3, h, w) to features (n, d).

    Raises:
        UserError: no encoder has that name; the message gives the nearest ones.
    """
    if name in SMALL_ENCODERS:
        return SmallResNet(SMALL_ENCODERS[name])
    if name in TORCHVISION_ENCODERS:
        encoder = torchvision.models.get_model(name, weights=None)
        encoder.fc = nn.Identity()
        return encoder
    if name.startswith("timm:"):
        return _build_timm(name.removeprefix("timm:"))
    known = [*SMALL_ENCODERS, *TORCHVISION_ENCODERS]
    nearest = difflib.get_close_matches(name, known, n=1) or ["resnet50"]
    raise UserError(
        f"Unknown encoder '{name}': expected one of {', '.join(known)} or timm:NAME; "
        f"did you mean '{nearest[0]}'?"
    )


def _build_timm(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
        raise UserError(f"timm {timm.__version__} has no model '{name}'{hint}.")
    encoder = timm.create_model(name, pretrained=False, num_classes=0)
    settings: Any = encoder.pretrained_cfg
    if not isinstance(settings.get("classifier", ""), str):
        raise UserError(
            f"timm's '{name}' has several classification layers: expected a model with one, such "
            "as its form without distillation."
        )
    return encoder


def feature_dim(encoder: nn.Module) -> int:
    """Return d, the width of the features, by encoding one blank image on the CPU.

    timm's `num_features` is another number where the head has a hidden layer.
    """
    settings: dict[str, Any] = vars(encoder).get("pretrained_cfg") or {}
    size = settings.get("input_size", (3, 64, 64))
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        features = encoder(torch.zeros(1, *size))
    encoder.train(was_training)
    return features.shape[1]


def classifier_name(encoder: nn.Module) -> str:
    """Return the name that the encoder's library gives its classification layer."""
    pretrained_cfg = getattr(encoder, "pretrained_cfg", None)
    if pretrained_cfg is None:
        return "fc"
    return pretrained_cfg.get("classifier") or "head"
