"""How a run is optimised, and on what."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import nn

from core_tuning.cores import available_cores
from core_tuning.errors import UserError

MIXED_PRECISION = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Settings:
    """How a learner is optimised.

    Attributes:
        epochs: passes over the training data.
        batch_size: images an optimiser step.
        lr: first learning rate.
        accumulate: micro-batches that a step is cut into; pairs are mined within a micro-batch.
        optimizer: "sgd" or "adam".
        momentum: of SGD.
        nesterov: Nesterov momentum, for SGD.
        weight_decay: factor of the L2 penalty.
        schedule: a key of `schedules.SCHEDULES`.
        ema: decay of the moving average of the weights and batch-norm statistics (`MovingAverage`)
            that is evaluated and exported in place of the last ones; 0 for none.
        limit_steps: stop after so many steps, where the schedule ends too; None: no limit.
        seed: of batches, augmentations and everything that an objective draws.
        precision: "fp32", or "bf16" or "fp16" for the autocast of the forward pass.
        channels_last: memory format of images and convolutions.
        compile: pass the encoder through torch.compile.
        device: "auto", "cpu" or "cuda".
        workers: processes that load images.
        eval_every: epochs between evaluations on the validation split.
        checkpoint_minutes: most minutes between checkpoints, 0 for one after every step; there is
            one after every epoch anyway.
    """

    epochs: int
    batch_size: int
    lr: float
    accumulate: int = 1
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    ema: float = 0.0
    limit_steps: int | None = None
    seed: int = 0
    precision: str = "fp32"
    channels_last: bool = True
    compile: bool = False
    device: str = "auto"
    workers: int = 0
    eval_every: int = 1
    checkpoint_minutes: float = 10.0


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
    """Resolve the device and check that it has the precision.

    Raises:
        UserError: CUDA is asked for and missing, or fp16 on a CPU.
    """
    chosen = choose_device(device)
    if chosen.type == "cpu" and precision == "fp16":
        raise UserError("The precision is 'fp16' on a CPU, which needs a GPU: use bf16 or fp32.")
    return chosen


def share_cores(workers: int) -> None:
    """Leave a CPU core to each worker, unless OMP_NUM_THREADS says otherwise.

    torch's threads wait for each other by spinning: with more threads and workers than cores, a
    step of a small network takes several times as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, available_cores() - workers))


def make_accelerator(settings: Settings) -> Accelerator:
    """Set up the device and the autocast dtype; raises what `check_machine` raises."""
    device = check_machine(settings.device, settings.precision)
    return Accelerator(
        cpu=device.type == "cpu", mixed_precision=MIXED_PRECISION[settings.precision]
    )


def make_optimizer(parameters: Iterable[nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """SGD with (Nesterov) momentum or Adam over `parameters`."""
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov and settings.momentum > 0,
        weight_decay=settings.weight_decay,
    )
