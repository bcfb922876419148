"""A model of the user's own, built by a function in a Python file, which may do anything."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError, reason

_NORMALISER = re.compile(r"(Input|Image)?Normali[sz](e|er|ation)")
EXPECTED = "expected a torch.nn.Module from images (n, 3, h, w) in [0, 1] to logits (n, classes)"


class OwnModule(nn.Module):
    """A user's module behind a wall: it gets images of its own, and has to answer with logits.

    Args:
        model: images (n, 3, h, w) in [0, 1] to logits (n, K).
        named: how messages name it.

    Raises:
        UserError: from `forward`, if the module fails or answers with anything else.
    """

    # Copying, folding and another memory format may each break it.
    attacked_as_is = True

    def __init__(self, model: nn.Module, named: str) -> None:
        super().__init__()
        self.model = model
        self.named = named

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (n, 3, h, w) in [0, 1]: float32 logits (n, K)."""
        with own_code(
            f"{self.named} on images {tuple(images.shape)}",
            "check --image-size, --batch-size and the model",
        ):
            # A copy, because normalising in place is common and would change the caller's images.
            logits = self.model(images.clone())
        found = _fault(logits, images)
        if found:
            given = tuple(images.shape)
            raise UserError(f"{self.named} returned {found} for images {given}: {EXPECTED}.")
        return logits.float()


def _fault(logits: object, images: Tensor) -> str:
    """Say what is wrong with a module's answer, by shape, dtype and device alone."""
    if not isinstance(logits, Tensor):
        return f"a {type(logits).__name__}"
    if logits.ndim != 2 or len(logits) != len(images):
        return f"the shape {tuple(logits.shape)}"
    if not logits.is_floating_point():
        return f"{str(logits.dtype).removeprefix('torch.')} numbers"
    if logits.device != images.device:
        return f"logits on {logits.device}, not on {images.device},"
    return ""


@contextmanager
def own_code(named: str, advice: str) -> Iterator[None]:
    """Turn whatever a user's code raises into a sentence.

    Args:
        named: whose code it is; begins the sentence.
        advice: ends it.
    """
    try:
        yield
    except UserError:
        raise
    # It may raise anything, and leave by sys.exit; whatever it is, it is theirs to read.
    except (Exception, SystemExit) as error:
        raise UserError(
            f"{named} raised {type(error).__name__} ({reason(error)}): {advice}."
        ) from error


def build_module(file: Path, function: str, named: str) -> nn.Module:
    """Call a function of a Python file, and put what it returns into evaluation mode.

    Args:
        file: the Python file, which is run.
        function: its name, of no arguments.
        named: how messages name both.

    Raises:
        UserError: there is no such function, it raises, or it returns no module that can be
            evaluated.
    """
    # Not Path's, which raises for names that no file can have.
    if not os.path.isfile(file):  # noqa: PTH113
        what = "is not an ordinary file" if os.path.exists(file) else "does not exist"  # noqa: PTH110
        raise UserError(
            f"--module names '{str(file)[:200]}', which {what}: expected FILE.py:FUNCTION, such as "
            "my.py:build_model."
        )
    spec = importlib.util.spec_from_file_location(f"evaluated_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UserError(f"--module names '{file}', which is not a Python file: expected FILE.py.")
    module = importlib.util.module_from_spec(spec)
    # As python itself does for a script, so that it can import what lies beside it.
    sys.path.insert(0, str(file.resolve().parent))
    with own_code(
        named,
        "expected a function without arguments that returns a model; call it in Python to see the "
        "traceback",
    ):
        spec.loader.exec_module(module)
        if not callable(getattr(module, function, None)):
            raise UserError(f"'{file}' has no function '{function}': name another with --module.")
        model = getattr(module, function)()
    if not isinstance(model, nn.Module):
        raise UserError(f"{named} returned a {type(model).__name__}: {EXPECTED}.")
    with own_code(
        f"Putting the model of {named} into float32 and evaluation mode",
        "expected a model whose float() and eval() work",
    ):
        model.float()
        model.eval()
        # Not the module's own requires_grad_, which TorchScript refuses.
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    return model


def training_norm(model: nn.Module) -> str:
    """Name a batch norm that is in training mode; "" if there is none.

    With one, an image's class depends on the other images, and each call changes the model.
    """
    for name, module in model.named_modules():
        # TorchScript's modules keep the name of the class that they were made of.
        kind = getattr(module, "original_name", type(module).__name__)
        if "BatchNorm" in kind and getattr(module, "training", False):
            return f"{kind} '{name}'"
    return ""


def normalising_layer(model: nn.Module) -> str | None:
    """Describe the first module that looks as if it normalises images; None if none does.

    One is told by its class's name, or by holding a mean and a standard deviation of 1 or 3
    numbers, neither of them 0 and 1.
    """
    for name, module in model.named_modules():
        holds = _holds(module, ("mean", "mu"), 0.0) and _holds(module, ("std", "sigma"), 1.0)
        if holds or _NORMALISER.match(type(module).__name__):
            return f"{type(module).__name__} '{name}'" if name else type(module).__name__
    return None


def _holds(module: nn.Module, names: tuple[str, ...], neutral: float) -> bool:
    values = next((getattr(module, name) for name in names if hasattr(module, name)), None)
    try:
        found = torch.as_tensor(values).flatten()
    except (TypeError, ValueError, RuntimeError):
        return False
    return len(found) in (1, 3) and not bool((found == neutral).all())
