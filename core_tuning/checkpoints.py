"""Reads, recognises and loads self-supervised checkpoints into encoders."""

from __future__ import annotations

import argparse
import difflib
import math
import pathlib
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import torch
from torch import Tensor, nn

from .checkpoint_architecture import advise, guess_architecture
from .checkpoint_formats import IMAGENET, SUPERVISED_TIMM
from .checkpoint_recognition import METADATA_KEY, Recognised, recognise, shorten
from .checkpoint_tensors import COMPUTED_BUFFER, check_kinds, check_values
from .encoders import (
    NO_NORMALISATION,
    Normalisation,
    assumed_heads,
    build_encoder,
    hidden_heads,
    split_heads,
    with_heads,
)
from .errors import UserError, reason, shown
from .files import require_file

__all__ = [
    "LoadReport",
    "Recognised",
    "describe",
    "load_pretrained",
    "read_checkpoint",
    "recognise",
]

# What torch.load names where weights_only refuses a file.
REFUSED = re.compile(
    r"GLOBAL ([\w.]+)|unrecognized function (.+)|Can only .* but got (.+)|with (TorchScript)"
)
# How many times smaller an archive may be that somebody compressed again.
MOST_COMPRESSED = 20
STRUCTURE = re.compile(
    r"(conv|bn|norm|ln|layer|block|stage|stem|downsample|patch_embed|pos_embed|pre_norm)"
    r"|\w*(norm|embed|token)(\.|$)"
)


def _harmless_globals() -> list[Any]:
    """List what old checkpoints hold beside tensors: options, numpy numbers, paths.

    Building any of them runs no code of the file's. They are named as pickles name them, because
    numpy 2 moved numpy.core and Python 3.13 moved pathlib's classes.
    """
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.empty(0).__reduce__()[0]
    allowed: list[Any] = [argparse.Namespace, np.ndarray, np.dtype]
    # Not objects ("O"): arrays of them would be more than numbers.
    allowed += {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDSU"}
    for core in ("numpy.core", "numpy._core"):
        allowed.append((scalar, f"{core}.multiarray.scalar"))
        allowed.append((reconstruct, f"{core}.multiarray._reconstruct"))
    for module in ("pathlib", "pathlib._local"):
        for kind in ("Posix", "Windows"):
            # The pure classes, because Linux cannot make a WindowsPath.
            pure = getattr(pathlib, f"Pure{kind}Path")
            allowed += [(pure, f"{module}.{kind}Path"), (pure, f"{module}.Pure{kind}Path")]
    return allowed


def read_checkpoint(path: str | Path) -> Any:
    """Read a file of tensors onto the CPU without running any code that it carries.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote, whatever its suffix.

    Returns:
        What the file holds; for `.safetensors` the tensors by name and, under "__metadata__",
        the header's metadata.

    Raises:
        UserError: the file is missing, damaged, not a checkpoint, or would run code.
    """
    path = Path(path)
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read ({error.strerror}): expected a checkpoint file; "
            "check the path and its rights."
        ) from error
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path)
    if not start.startswith((b"PK", b"\x80")):
        begins = f"it begins with {start!r}" if start else "it is empty"
        raise UserError(
            f"'{path}' is not a PyTorch checkpoint ({begins}): expected a file written by "
            "torch.save, or a .safetensors file; check the path or download it again."
        )
    if start.startswith(b"PK"):
        _refuse_bomb(path)
    return _read_torch(path)


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that would fill the memory: torch does not compress what it saves."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    # A damaged directory of parts can raise nearly any exception.
    except Exception as error:
        raise _damaged(path, "PyTorch checkpoint", error) from error
    if unpacked > MOST_COMPRESSED * path.stat().st_size:
        raise UserError(
            f"'{path}' would unpack to {unpacked / 1e6:,.0f} MB: expected a checkpoint, which "
            "torch.save does not compress; download it again from its authors."
        )


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return {**tensors, METADATA_KEY: file.metadata() or {}}
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, "safetensors file", error) from error


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless_globals()), warnings.catch_warnings():
            # torch's of its own past, which a user can do nothing about.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged pickle can raise nearly any exception: all of them mean the same to the user.
    except Exception as error:
        refused = REFUSED.search(str(error))
        if refused is None:
            raise _damaged(path, "PyTorch checkpoint", error) from error
        held = shown(next(filter(None, refused.groups())))
        raise UserError(
            f"'{path}' holds {held}, which could run code and is not loaded: expected "
            "tensors and plain Python values; where you trust its origin, save the weights alone "
            "with torch.save(model.state_dict(), FILE) and pass that file."
        ) from error


def _damaged(path: Path, kind: str, error: Exception) -> UserError:
    return UserError(
        f"'{path}' cannot be read ({reason(error)}): expected a whole {kind}; download or copy it "
        "again."
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
            f"loaded {self.loaded} tensors ({_millions(self.parameters)}) from {self.format}",
            f"ignored {len(self.ignored)}: {shorten(self.ignored)}" if self.ignored else "",
            f"input normalisation: {_normalisation_text(self.normalisation)}",
            f"note: {self.note}" if self.note else "",
        ]
        return [line for line in lines if line]

    def __str__(self) -> str:
        return "\n".join(self.lines())


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
    return load_found(find_encoder(path, encoder), path, encoder, normalisation=normalisation)


def find_encoder(path: str | Path, encoder: nn.Module) -> Recognised:
    """Read a checkpoint and find in it what may fit an encoder; raises as `load_pretrained`."""
    return recognise(read_checkpoint(path), path, encoder.state_dict().keys())


def load_found(
    found: Recognised,
    path: str | Path,
    encoder: nn.Module,
    *,
    named: str = "",
    normalisation: Normalisation | None = None,
) -> LoadReport:
    """Load what `find_encoder` found, as `load_pretrained` does.

    Args:
        named: what the user called the encoder.
    """
    own = encoder.state_dict()
    extra = [name for name in found.state if name not in own and not COMPUTED_BUFFER.search(name)]
    roots = {name.split(".")[0] for name in own}
    structural = [name for name in extra if name.split(".")[0] in roots or STRUCTURE.match(name)]
    check_kinds(found.state, path, own)
    _check_fit(path, found, own, structural)
    check_values(found.state, path, own)
    taken = {name: found.state.get(name, value) for name, value in own.items()}
    encoder.load_state_dict(taken, strict=True)
    default, assumed = _default_normalisation(found, encoder)
    notes = [
        found.note,
        assumed if normalisation is None else "",
        _heads_note(found, encoder, named),
    ]
    return LoadReport(
        found.format,
        sum(name in found.state for name in own),
        sum(parameter.numel() for parameter in encoder.parameters()),
        [*extra, *found.ignored],
        default if normalisation is None else normalisation,
        "; ".join(filter(None, notes)),
    )


def _heads_note(found: Recognised, encoder: nn.Module, named: str = "") -> str:
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
    path: str | Path, found: Recognised, own: Mapping[str, Tensor], structural: list[str]
) -> None:
    state = found.state
    missing = [name for name in own if name not in state and not COMPUTED_BUFFER.search(name)]
    reshaped = [name for name in own if name in state and state[name].shape != own[name].shape]
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
    encoder, heads = _named_with_heads(architecture.encoder, found)
    file = shown(path, 300)
    parameters = sum(math.prod(found.state[name].shape) for name in _parameter_names(found.state))
    features = f", features {architecture.features}" if architecture.features else ""
    ignored = f"; ignored {len(found.ignored)}: {shorten(found.ignored)}" if found.ignored else ""
    use = f"--encoder {shown(encoder or 'timm:NAME')} --pretrained {shlex.quote(file)}"
    unknown = "" if encoder else " (NAME: the timm model that it was trained with, if there is one)"
    notes = "; ".join(filter(None, [found.note, heads]))
    lines = [
        f"{file}: {Path(path).stat().st_size / 1e6:.1f} MB, {found.format}",
        f"architecture: {architecture.description}, {_millions(parameters)}{features}",
        f"tensors: {len(found.state)} of the encoder{ignored}",
        f"input normalisation: {_normalisation_text(found.normalisation)}",
        f"note: {notes}" if notes else "",
        f"use: {use}{unknown}",
    ]
    return [line for line in lines if line]


def _named_with_heads(encoder: str | None, found: Recognised) -> tuple[str | None, str]:
    """Name the encoder that a file fits with its attention heads, and say how they are known."""
    if encoder is None:
        return found.encoder, ""
    with torch.device("meta"):
        encoder = with_heads(encoder, build_encoder(encoder), found.heads)
        return encoder, _heads_note(found, build_encoder(encoder))


def _parameter_names(state: Iterable[str]) -> list[str]:
    buffers = ("num_batches_tracked", "running_mean", "running_var", "relative_position_index")
    return [name for name in state if not name.endswith(buffers)]


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.1f} M parameters"


def _normalisation_text(normalisation: Normalisation) -> str:
    if normalisation == IMAGENET:
        return "ImageNet mean and std"
    if normalisation == NO_NORMALISATION:
        return "none, images stay in [0, 1]"
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in normalisation)
    return f"mean {mean}; std {std}"
