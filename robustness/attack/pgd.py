"""Adversarial images by torchattacks' PGD, with what it leaves to its callers.

torchattacks draws from torch's global generator, gives NaN for eps = 0, changes module modes, and
checks neither its input nor its output. Under L2 it crashes on gradients that are not contiguous,
which those of an `AttackView` are.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from core_tuning.errors import UserError

from ..budgets import Budget, check_reach

OLDEST = (3, 5)
INSTALL = "pip install 'core-tuning[robustness]'"
TOLERANCE = 1e-5  # of norms and ranges, for rounding in float32


def check_torchattacks() -> None:
    """Check that torchattacks 3.5 or newer is installed.

    Raises:
        UserError: it is missing, too old, or does not import.
    """
    try:
        version = importlib.metadata.version("torchattacks")
        importlib.import_module("torchattacks")
    except ImportError as error:
        raise UserError(
            f"The attacks are torchattacks', which does not import ({error}): install it with "
            f"{INSTALL}."
        ) from error
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST:
        raise UserError(
            f"torchattacks is {version}: expected 3.5 or newer, which pip passes over where "
            f"another package's requests does not fit; install it with {INSTALL}."
        )


@functools.cache
def _attacks() -> dict[str, Any]:
    check_torchattacks()
    module: Any = importlib.import_module("torchattacks")
    return {"l2": module.PGDL2, "linf": module.PGD}


def perturb(
    view: nn.Module, images: Tensor, labels: Tensor, budget: Budget, *, seed: int
) -> Tensor:
    """Attack images by torchattacks' `PGD` or `PGDL2` with a random start.

    With the same seed the result equals that of torchattacks after `torch.manual_seed(seed)`.
    The global random state is left as it was; no module's mode changes.

    Args:
        view: an `AttackView`, or a module around one: images (n, 3, h, w) in [0, 1] to logits
            (n, K), all of its modules in evaluation mode.
        images: (n, 3, h, w) in [0, 1], float32 (or float64), on the view's device.
        labels: (n,), the true classes.
        budget: norm, eps, steps and step size; of eps = 0 the result is a copy of the images.
        seed: of the random start.

    Returns:
        Adversarial images (n, 3, h, w) without gradient, in dtype and memory format of `images`.

    Raises:
        UserError: images outside [0, 1], not finite or of integers, eps beyond their range, or
            torchattacks missing or too old.
        ValueError: a module of the view is in training mode.
        RuntimeError: the attack broke its budget.
    """
    if any(module.training for module in view.modules()):
        raise ValueError("a module of the view is in training mode: give an AttackView.")
    if images.dtype not in (torch.float32, torch.float64) or images.dim() != 4:
        raise UserError(
            f"The images are {images.dtype} of shape {tuple(images.shape)}: expected float32 of "
            "shape (n, 3, h, w) in [0, 1]; divide bytes by 255."
        )
    norm, eps, steps, step_size = budget
    if len(images) == 0:
        return images.detach().clone()
    check_reach(norm, eps, images[0].numel())
    if eps == 0:
        check_result(images, images, norm, eps)
        return images.detach().clone()
    # torchattacks prints where a model has no parameters.
    with contextlib.redirect_stdout(io.StringIO()):
        attack = _attacks()[norm](view, eps=eps, alpha=step_size, steps=steps, random_start=True)
    attack.set_device(images.device)
    plain, is_on_gpu = images.detach().contiguous(), images.is_cuda
    with torch.enable_grad(), torch.random.fork_rng([images.device] if is_on_gpu else []):
        # torch.manual_seed would seed every other device as well, which are not restored.
        torch.default_generator.manual_seed(seed)
        if is_on_gpu:
            torch.cuda.default_generators[images.device.index].manual_seed(seed)
        adversarial: Tensor = attack(plain, labels)
    check_result(plain, adversarial, norm, eps)
    if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
        return adversarial.contiguous(memory_format=torch.channels_last)
    return adversarial


def check_result(
    images: Tensor, adversarial: Tensor, norm: str, eps: float, *, tolerance: float = TOLERANCE
) -> None:
    """Check clean and adversarial images (n, 3, h, w), n at least 1; the device is waited for once.

    Args:
        images: clean ones.
        adversarial: what an attack made of them.
        norm: "l2" or "linf".
        eps: largest norm of a perturbation.
        tolerance: relative, of that norm.

    Raises:
        UserError: the clean images are not in [0, 1].
        RuntimeError: the adversarial ones are not, or further away than eps.
    """
    order = {"l2": 2.0, "linf": math.inf}[norm]
    sizes = torch.linalg.vector_norm((adversarial - images).flatten(1), order, dim=1)
    extrema = [*torch.aminmax(images), *torch.aminmax(adversarial), sizes.amax()]
    low, high, adversarial_low, adversarial_high, size = torch.stack(extrema).tolist()
    # Written so that nan, which aminmax passes on, fails too.
    if not (low >= 0 and high <= 1):
        raise UserError(
            f"The images reach from {low:g} to {high:g}: expected finite values in [0, 1]; leave "
            "normalisation to the model, which normalises inside."
        )
    in_range = adversarial_low >= 0 and adversarial_high <= 1
    if not (in_range and size <= eps * (1 + tolerance) + TOLERANCE):
        raise RuntimeError(
            f"The attack broke its budget: adversarial images from {adversarial_low:g} to "
            f"{adversarial_high:g}, expected [0, 1]; largest {norm} norm {size:g}, expected "
            f"at most {eps:g}."
        )
