"""How a learner is optimised, and on what machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn

from core_tuning.config import Optimisation
from core_tuning.cores import available_cores
from core_tuning.errors import UserError

# Side in pixels up to which augmenting images takes as much of a CPU as training on them does;
# above it, all cores had better train.
SMALL_IMAGES = 96
MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def choose_device(name: str) -> torch.device:
    """Resolve "auto", "cpu" or "cuda".

    Raises:
        UserError: CUDA is asked for and missing.
    """
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise UserError("The device is 'cuda', and torch finds no CUDA GPU: use --device cpu.")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def check_machine(device: str, precision: str) -> torch.device:
    """Resolve the device and check that it can train.

    Raises:
        UserError: CUDA is asked for and missing, fp16 on a CPU, or several processes are started.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise UserError(
            f"WORLD_SIZE is {processes}, as under torchrun: training runs in one process; start "
            "the command by itself."
        )
    chosen = choose_device(device)
    if chosen.type == "cpu" and precision == "fp16":
        raise UserError("The precision is 'fp16' on a CPU, which needs a GPU: use bf16 or fp32.")
    return chosen


def share_cores(workers: int, image_size: int) -> None:
    """Leave a CPU core to each worker, unless OMP_NUM_THREADS says otherwise or images are large.

    torch's threads wait for each other by spinning: with more threads and workers than cores, a
    step of a small network takes several times as long.

    Args:
        workers: processes that load images.
        image_size: side of the images in pixels.
    """
    if "OMP_NUM_THREADS" not in os.environ and image_size <= SMALL_IMAGES:
        torch.set_num_threads(max(1, available_cores() - workers))


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Set up the device and the autocast dtype; raises what `check_machine` raises."""
    chosen = check_machine(device, precision)
    # It is one for all of a process, and would refuse another run's precision.
    AcceleratorState._reset_state()
    return Accelerator(cpu=chosen.type == "cpu", mixed_precision=MIXED_PRECISION[precision])


def make_optimizer(parameters: Iterable[nn.Parameter], how: Optimisation) -> torch.optim.Optimizer:
    """SGD with (Nesterov) momentum, or Adam."""
    if how.optimizer == "adam":
        return torch.optim.Adam(
            parameters, lr=how.lr, weight_decay=how.weight_decay or 0.0, fused=True
        )
    return torch.optim.SGD(
        parameters,
        lr=how.lr,
        momentum=how.momentum,
        nesterov=how.nesterov and how.momentum > 0,
        weight_decay=how.weight_decay,
    )


def rate(how: Optimisation, step: int, steps: int) -> float:
    """Learning rate of a step, counted from 0, of so many; schedules keep no state.

    "cosine" and "linear" would reach 0 one step after the last; "exponential" falls by a constant
    factor to `lr_decay` of the first rate at the last step, and stays there.
    """
    done = step / steps
    factors = {
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "linear": 1 - done,
        "constant": 1.0,
        "exponential": how.lr_decay ** min(1.0, step / max(1, steps - 1)),
    }
    return how.lr * factors[how.schedule]
