"""Loads checkpoints of any recognised format into encoders, wholly or not at all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from ..encoders import (
    NO_NORMALISATION,
    Normalisation,
    assumed_heads,
    hidden_heads,
    split_heads,
)
from ..errors import UserError
from .architecture import advise, guess_architecture
from .formats import IMAGENET, SUPERVISED_TIMM
from .read import read_checkpoint
from .recognise import Recognised, recognise, shorten
from .tensors import COMPUTED_BUFFER, check_kinds, check_values

# Names of what changes what an encoder computes, even where the encoder asked for lacks it.
STRUCTURE = re.compile(
    r"(conv|bn|norm|ln|layer|block|stage|stem|downsample|patch_embed|pos_embed|pre_norm)"
    r"|\w*(norm|embed|token)(\.|$)"
)


class LoadReport(NamedTuple):
    """What `load_pretrained` did.

    Attributes:
        format: the recognised format, such as "MoCo v2".
        loaded: number of tensors taken from the file.
        parameters: number of parameters of the encoder.
        ignored: names in the file of what is not the encoder's.
        normalisation: what the images, in [0, 1], need before the encoder.
        note: what was assumed or chosen; "" where there is nothing to say.
    """

    format: str
    loaded: int
    parameters: int
    ignored: list[str]
    normalisation: Normalisation
    note: str

    def lines(self) -> list[str]:
        """Return the lines that the command line prints."""
        lines = [
            f"loaded {self.loaded} tensors ({millions(self.parameters)}) from {self.format}",
            f"ignored {len(self.ignored)}: {shorten(self.ignored)}" if self.ignored else "",
            f"input normalisation: {normalisation_text(self.normalisation)}",
            f"note: {self.note}" if self.note else "",
        ]
        return [line for line in lines if line]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def millions(parameters: int) -> str:
    """Say a number of parameters."""
    return f"{parameters / 1e6:.1f} M parameters"


def normalisation_text(normalisation: Normalisation) -> str:
    """Say how images are normalised."""
    if normalisation == IMAGENET:
        return "ImageNet mean and std"
    if normalisation == NO_NORMALISATION:
        return "none, images stay in [0, 1]"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in normalisation)
    return f"mean {mean}; std {std}"


def load_pretrained(
    path: str | Path, encoder: nn.Module, *, normalisation: Normalisation | None = None
) -> LoadReport:
    """Load a checkpoint of any recognised format into an encoder, wholly or not at all.

    Args:
        path: the checkpoint.
        encoder: a module of `build_encoder`; unchanged where an error is raised.
        normalisation: overrides the one that belongs to the recognised format.

    Raises:
        UserError: the file cannot be read or recognised, does not fit the encoder, or has a
            tensor that no trained encoder has.
    """
    found = recognise(read_checkpoint(path), path, encoder.state_dict().keys())
    return load_found(found, path, encoder, normalisation=normalisation)


def load_found(
    found: Recognised,
    path: str | Path,
    encoder: nn.Module,
    *,
    named: str = "",
    normalisation: Normalisation | None = None,
) -> LoadReport:
    """Load what was recognised in a file, as `load_pretrained` does.

    Args:
        named: what the user called the encoder.
    """
    own = encoder.state_dict()
    extra = [name for name in found.state if name not in own and not COMPUTED_BUFFER.search(name)]
    check_kinds(found.state, path, own)
    _check_fit(path, found, own, extra)
    check_values(found.state, path, own)
    encoder.load_state_dict({name: found.state.get(name, own[name]) for name in own})
    default, assumed = _default_normalisation(found, encoder)
    notes = [
        found.note,
        assumed if normalisation is None else "",
        heads_note(found, encoder, named),
    ]
    return LoadReport(
        found.format,
        sum(name in found.state for name in own),
        sum(parameter.numel() for parameter in encoder.parameters()),
        [*extra, *found.ignored],
        default if normalisation is None else normalisation,
        "; ".join(filter(None, notes)),
    )


def heads_note(found: Recognised, encoder: nn.Module, named: str = "") -> str:
    """Say how many attention heads the encoder has where the tensors do not."""
    heads = hidden_heads(encoder)
    if heads is None or (found.heads is None and found.encoder is not None):
        return ""
    if found.heads == heads:
        return f"{heads} attention heads, as in {found.format}"
    if found.heads is not None:
        return f"{heads} attention heads, as asked for, where {found.format} has {found.heads}"
    if split_heads(named)[1] is not None:
        return f"{heads} attention heads, as asked for"
    return assumed_heads(encoder)


def _default_normalisation(found: Recognised, encoder: nn.Module) -> tuple[Normalisation, str]:
    settings = getattr(encoder, "pretrained_cfg", None)
    if found.format != SUPERVISED_TIMM or not settings:
        return found.normalisation, ""
    # timm's own supervised ViTs differ in it, and their files do not say which one they used.
    default = Normalisation(tuple(settings["mean"]), tuple(settings["std"]))
    if default == found.normalisation:
        return default, ""
    return default, (
        f"mean and std are timm's for {settings.get('architecture', 'this model')}; "
        "pass --normalisation if the file had others"
    )


def _check_fit(
    path: str | Path, found: Recognised, own: Mapping[str, Tensor], extra: list[str]
) -> None:
    state = found.state
    roots = {name.split(".")[0] for name in own}
    missing = [name for name in own if name not in state and not COMPUTED_BUFFER.search(name)]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
    structural = [name for name in extra if name.split(".")[0] in roots or STRUCTURE.match(name)]
    faults = []
    if missing:
        named = [name + _nearest(name, state) for name in missing[:3]]
        faults.append(f"tensors missing ({len(missing)}): {shorten(named)}")
    if reshaped:
        named = [
            f"{name} is {tuple(state[name].shape)} and not {tuple(own[name].shape)}"
            for name in reshaped
        ]
        faults.append(f"of another shape ({len(reshaped)}): {shorten(named, 2)}")
    if structural:
        faults.append(f"without a place in it ({len(structural)}): {shorten(structural, 3)}")
    if faults:
        held, wanted = guess_architecture(state), guess_architecture(own)
        raise UserError(
            f"'{path}', recognised as {found.format}, does not fit the encoder, a "
            f"{wanted.description}: "
            f"{'; '.join(faults)}; it holds a {held.description}: "
            f"{advise(held.encoder or found.encoder, state, own)}."
        )


def _nearest(name: str, state: Mapping[str, Tensor]) -> str:
    prefixed = [other for other in state if other.endswith(f".{name}")]
    nearest = prefixed or difflib.get_close_matches(name, state, n=1, cutoff=0.5)
    return f" (nearest in the file {nearest[0]})" if nearest else ""
