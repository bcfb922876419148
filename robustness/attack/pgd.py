"""Adversarial images by torchattacks' PGD, with what it leaves to its callers.

torchattacks draws from torch's global generator, crashes on channels_last gradients under L2,
gives NaN for eps = 0, changes module modes, and checks neither its input nor its output.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import io
import math
import re
from collections.abc import Iterator
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
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"torchattacks is not installed, and the attacks are its: install it with {INSTALL}."
        ) from None
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        raise UserError(
            f"torchattacks is {version}: expected 3.5 or newer, which pip passes over where "
            f"another package's requests does not fit; install it with {INSTALL}."
        )
    try:
        importlib.import_module("torchattacks")
    except ImportError as error:
        raise UserError(
            f"torchattacks {version} does not import ({error}): install it with {INSTALL}."
        ) from error


def perturb(
    view: nn.Module,
    images: Tensor,
    labels: Tensor,
    budget: Budget,
    *,
    seed: int,
    targets: Tensor | None = None,
) -> Tensor:
    """Attack images by torchattacks' `PGD` or `PGDL2` with a random start.

    With the same seed the result equals that of torchattacks after `torch.manual_seed(seed)`.
    The global random state is left as it was; no module's mode changes.

    Args:
        view: images (n, 3, h, w) in [0, 1] to logits (n, K), all of its modules in evaluation
            mode: an `AttackView`, or any other model.
        images: (n, 3, h, w) in [0, 1], float32 (or float64), on the view's device.
        labels: (n,), the true classes.
        budget: norm, eps, steps and step size; of eps = 0 the result is a copy of the images.
        seed: of the random start.
        targets: (n,), classes to make the view predict; None: away from the labels.

    Returns:
        Adversarial images (n, 3, h, w) without gradient, in dtype and memory format of `images`.

    Raises:
        UserError: images outside [0, 1], not finite or of integers, eps beyond their range,
            tensors on other devices, or torchattacks missing or too old.
        ValueError: a module of the view is in training mode.
        RuntimeError: called under torch.inference_mode, or the attack broke its budget.
    """
    _check_call(view, images, labels, budget, targets)
    if budget.eps == 0 or len(images) == 0:
        if len(images):
            check_result(images, images, budget.norm, budget.eps)
        return images.detach().clone()
    attack = _build(view, budget, targets is not None)
    attack.set_device(images.device)
    plain = images.detach().contiguous()
    with torch.enable_grad(), _seeded(images.device, seed):
        adversarial = attack(plain, labels if targets is None else targets)
    check_result(plain, adversarial, budget.norm, budget.eps)
    if not images.is_contiguous() and images.is_contiguous(memory_format=torch.channels_last):
        return adversarial.contiguous(memory_format=torch.channels_last)
    return adversarial


class _ContiguousGradient(nn.Module):
    """Gives the model's input gradient the layout that `PGDL2` views as (n, 3 h w)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        # torchattacks puts what it finds in training mode back into it, with all children.
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        entered = images.view_as(images)
        if entered.requires_grad:
            entered.register_hook(torch.Tensor.contiguous)
        return self.model(entered)


@functools.cache
def _attacks() -> dict[str, Any]:
    check_torchattacks()
    module: Any = importlib.import_module("torchattacks")
    return {"l2": module.PGDL2, "linf": module.PGD}


def _build(view: nn.Module, budget: Budget, targeted: bool) -> Any:
    # torchattacks prints where a model has no parameters.
    with contextlib.redirect_stdout(io.StringIO()):
        attack = _attacks()[budget.norm](
            _ContiguousGradient(view),
            eps=budget.eps,
            alpha=budget.step_size,
            steps=budget.steps,
            random_start=True,
        )
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack


@contextlib.contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators of the CPU and of `device`, and restore them afterwards.

    `torch.manual_seed` would seed every other device as well, which fork_rng does not restore.
    """
    if device.type == "cpu":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            yield
        return
    with torch.random.fork_rng(devices=[device], device_type=device.type):
        torch.default_generator.manual_seed(seed)
        backend: Any = torch.get_device_module(device)
        with backend.device(device):
            backend.manual_seed(seed)
        yield


def _check_call(
    view: nn.Module, images: Tensor, labels: Tensor, budget: Budget, targets: Tensor | None
) -> None:
    """Check whatever needs no tensor's value."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "perturb is called under torch.inference_mode, which records no gradients: call it "
            "outside, or under torch.no_grad."
        )
    for name, module in view.named_modules():
        if module.training:
            raise ValueError(
                f"Module '{name}' ({type(module).__name__}) of the view is in training mode: give "
                "an AttackView of the model, or call eval() on a copy."
            )
    if images.dtype not in (torch.float32, torch.float64) or images.dim() != 4:
        raise UserError(
            f"The images are {images.dtype} of shape {tuple(images.shape)}: expected float32 of "
            "shape (n, 3, h, w) in [0, 1]; divide bytes by 255."
        )
    weight = next(iter([*view.parameters(), *view.buffers()]), images)
    for name, tensor in {"labels": labels, "targets": targets}.items():
        if tensor is not None and tensor.shape != images.shape[:1]:
            raise ValueError(
                f"The {name} have shape {tuple(tensor.shape)}: expected ({len(images)},)."
            )
    for name, tensor in {"view": weight, "labels": labels, "targets": targets}.items():
        if tensor is not None and tensor.device != images.device:
            raise UserError(
                f"The images are on {images.device} and the {name} on {tensor.device}: expected "
                f"one device; move them with .to('{images.device}')."
            )
    if len(images):
        check_reach(budget.norm, budget.eps, images[0].numel())


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
