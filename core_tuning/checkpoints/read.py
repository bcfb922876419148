"""Reads checkpoint files without running any code that they carry."""

from __future__ import annotations

import argparse
import pathlib
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch

from ..errors import UserError, reason, shown
from ..files import require_file

# safetensors reserves this name in its own header, so no tensor can have it.
METADATA_KEY = "__metadata__"
# What torch.load names where weights_only refuses a file.
REFUSED = re.compile(
    r"GLOBAL ([\w.]+)|unrecognized function (.+)|Can only .* but got (.+)|with (TorchScript)"
)
# How many times smaller an archive may be that somebody compressed again.
MOST_COMPRESSED = 20


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
