"""Image encoders by name, from a checkpoint, from the embedded one, or from random weights."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.resources import as_file, files
from pathlib import Path

from ..encoders import SMALL_ENCODER, ImageEncoder, Normalisation, build_encoder, with_heads
from .load import load_found
from .read import read_checkpoint
from .recognise import recognise

EMBEDDED = "embedded"
RANDOM = "random"
_EMBEDDED_FILE = "small_resnet_moco_v2.safetensors"


def default_encoder(pretrained: str) -> str:
    """Return the encoder that belongs to a checkpoint where the user names none."""
    return SMALL_ENCODER if pretrained == EMBEDDED else "resnet50"


def load_image_encoder(
    encoder: str, pretrained: str, *, normalisation: Normalisation | None = None
) -> tuple[ImageEncoder, str]:
    """Build an encoder and load its weights.

    Args:
        encoder: a name that `build_encoder` knows.
        pretrained: path of a checkpoint; "embedded" for the MoCo-v2 weights of `small_resnet`
            that are shipped; "random" for an encoder without pre-training.
        normalisation: overrides the one that belongs to the checkpoint.

    Returns:
        The image encoder, whose `name` has the number of attention heads that the checkpoint's
        format asks for, and what its weights came from, in a few lines.

    Raises:
        UserError: the encoder is unknown, or the checkpoint cannot be read or does not fit it.
    """
    module = build_encoder(encoder)
    if pretrained == RANDOM:
        random = ImageEncoder(module, normalisation or Normalisation(), name=encoder)
        return random, "random weights"
    shipped = as_file(files("core_tuning.data") / "embedded" / _EMBEDDED_FILE)
    with shipped if pretrained == EMBEDDED else nullcontext(Path(pretrained)) as path:
        found = recognise(read_checkpoint(path), path, module.state_dict().keys())
        name = with_heads(encoder, module, found.heads)
        if name != encoder:
            module = build_encoder(name)
        report = load_found(found, path, module, named=encoder, normalisation=normalisation)
    return ImageEncoder(module, report.normalisation, name=name), str(report)
