"""A model of the user's own, built by a function in a Python file."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError

_NORMALISER = re.compile(r"(Input|Image)?Normali[sz](e|er|ation)")


def build_module(file: Path, function: str, named: str) -> nn.Module:
    """Call a function of a Python file.

    Args:
        file: the Python file, which is run.
        function: its name, of no arguments.
        named: how messages name both.

    Raises:
        UserError: there is no such function, it raises, or it returns no module.
    """
    if not file.is_file() or not function:
        raise UserError(
            f"--module is '{named}' and there is no file '{file}': expected FILE.py:FUNCTION, such "
            "as my.py:build_model."
        )
    spec = importlib.util.spec_from_file_location(f"evaluated_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--module names '{file}', which is no Python file: expected FILE.py.")
    module = importlib.util.module_from_spec(spec)
    # As python itself does for a script, so that it can import what lies beside it.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise UserError(f"'{file}' has no function '{function}': name another with --module.")
        model = getattr(module, function)()
    except UserError:
        raise
    # The user's code may raise anything; whatever it is, it is theirs to read.
    except Exception as error:
        raise UserError(
            f"{named} raised {type(error).__name__} ({first_line(error)}): expected a function "
            "without arguments that returns a model; call it in Python to see the traceback."
        ) from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{named} returned a {type(model).__name__}: expected a torch.nn.Module from images "
            "(n, 3, h, w) in [0, 1] to logits (n, K)."
        )
    return model


def normalising_layer(model: nn.Module) -> str | None:
    """Describe the first module that looks as if it normalises images; None if none does.

    One is told by its class's name, or by holding a mean and a standard deviation of 1 or 3
    numbers, neither of them 0 and 1.
    """
    for name, module in model.named_modules():
        named = _NORMALISER.match(type(module).__name__) is not None
        if named or _holds_statistics(module):
            return f"{type(module).__name__} '{name}'" if name else type(module).__name__
    return None


def _holds_statistics(module: nn.Module) -> bool:
    for names, neutral in ((("mean", "mu"), 0.0), (("std", "sigma"), 1.0)):
        values = next((getattr(module, name) for name in names if hasattr(module, name)), None)
        if not isinstance(values, (Tensor, list, tuple, float)):
            return False
        numbers = torch.as_tensor(values).flatten()
        if len(numbers) not in (1, 3) or bool((numbers == neutral).all()):
            return False
    return True


def first_line(error: Exception) -> str:
    """Return what an exception says, shortened."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".")[:160] if lines else "no message"
