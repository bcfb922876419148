"""Says what a checkpoint holds and how to use it, without an encoder to load it into."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import torch

from ..encoders import build_encoder, with_heads
from ..errors import shown
from .architecture import guess_architecture
from .load import heads_note, millions, normalisation_text
from .read import read_checkpoint
from .recognise import recognise, shorten
from .tensors import check_kinds, check_values

BUFFERS = ("num_batches_tracked", "running_mean", "running_var", "relative_position_index")


def describe(path: str | Path) -> list[str]:
    """Say in a few lines what a checkpoint holds and how to use it.

    Raises:
        UserError: the file cannot be read or recognised, or has a tensor that no trained encoder
            has.
    """
    found = recognise(read_checkpoint(path), path)
    check_kinds(found.state, path)
    check_values(found.state, path)
    architecture = guess_architecture(found.state)
    encoder, heads = architecture.encoder, ""
    if encoder is None:
        encoder = found.encoder
    else:
        with torch.device("meta"):
            encoder = with_heads(encoder, build_encoder(encoder), found.heads)
            heads = heads_note(found, build_encoder(encoder))
    file = shown(path, 300)
    parameters = sum(
        math.prod(value.shape) for name, value in found.state.items() if not name.endswith(BUFFERS)
    )
    features = f", features {architecture.features}" if architecture.features else ""
    ignored = f"; ignored {len(found.ignored)}: {shorten(found.ignored)}" if found.ignored else ""
    # Quoted, because the file may name anything as its encoder, and the line is to be pasted.
    use = f"--encoder {shlex.quote(shown(encoder or 'timm:NAME'))} --pretrained {shlex.quote(file)}"
    unknown = "" if encoder else " (NAME: the timm model that it was trained with, if there is one)"
    notes = "; ".join(filter(None, [found.note, heads]))
    lines = [
        f"{file}: {Path(path).stat().st_size / 1e6:.1f} MB, {found.format}",
        f"architecture: {architecture.description}, {millions(parameters)}{features}",
        f"tensors: {len(found.state)} of the encoder{ignored}",
        f"input normalisation: {normalisation_text(found.normalisation)}",
        f"note: {notes}" if notes else "",
        f"use: {use}{unknown}",
    ]
    return [line for line in lines if line]
