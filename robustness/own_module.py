"""A model of the user's own, built by a function in a Python file, which may do anything."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from core_tuning.errors import UserError, reason

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
        shape = tuple(images.shape)
        with own_code(f"{self.named} on images {shape}", "check --image-size and --batch-size"):
            # A copy, because normalising in place is common and would change the caller's images.
            logits = self.model(images.clone())
        found = f"a {type(logits).__name__}"
        if isinstance(logits, Tensor):
            kind = str(logits.dtype).removeprefix("torch.")
            found = f"{kind} numbers of the shape {tuple(logits.shape)} on {logits.device}"
            if (
                logits.ndim == 2
                and len(logits) == len(images)
                and logits.is_floating_point()
                and logits.device == images.device
            ):
                return logits.float()
        raise UserError(f"{self.named} returned {found} for images {shape}: {EXPECTED}.")


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


def build_module(file: Path, function: str, named: str) -> OwnModule:
    """Call a function of a Python file, and put what it returns into float32 and evaluation mode.

    Args:
        file: the Python file, which is run.
        function: its name, of no arguments.
        named: how messages name both.

    Raises:
        UserError: there is no such function, it raises, or it returns no module that can be
            evaluated.
    """
    spec = importlib.util.spec_from_file_location(f"evaluated_{file.stem}", file)
    # Not Path's, which raises for names that no file can have.
    if spec is None or spec.loader is None or not os.path.isfile(file):  # noqa: PTH113
        raise UserError(
            f"--module names '{str(file)[:200]}', which is not the file of a Python program: "
            "expected FILE.py:FUNCTION, such as my.py:build_model."
        )
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
        model.float()
        model.eval()
        # Not the module's own requires_grad_, which TorchScript refuses.
        for parameter in model.parameters():
            parameter.requires_grad_(False)
    return OwnModule(model, named)


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
