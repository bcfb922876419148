"""Timing and peak memory of training steps, for the scripts beside this file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

# A step returns the tensors that the rest of the training step would send gradient into.
Step = Callable[[], list[Tensor]]
WARM_UP = 3


class Timing(NamedTuple):
    """Median milliseconds of a step, and median and quartiles of its ratios to the first step."""

    milliseconds: float
    ratio: float
    lower: float
    upper: float


def milliseconds(
    step: Step, leaves: list[Tensor], backward: bool, gradients: list[Tensor]
) -> float:
    """Time one step; the gradients of its outputs are made beforehand."""
    started = time.perf_counter()
    outputs = step()
    if backward:
        torch.autograd.backward(outputs, gradients)
    elapsed = time.perf_counter() - started
    for leaf in leaves:
        leaf.grad = None
    return 1e3 * elapsed


def compare(
    steps: Mapping[str, Step],
    leaves: list[Tensor],
    *,
    backward: bool,
    repeats: int,
    warm_up: int = WARM_UP,
) -> dict[str, Timing]:
    """Time steps in turn, so that a machine that drifts does so for all of them."""
    gradients = {name: [torch.ones_like(out) for out in step()] for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(warm_up + repeats):
        for name, step in steps.items():
            elapsed = milliseconds(step, leaves, backward, gradients[name])
            if repeat >= warm_up:
                times[name].append(elapsed)
    first = next(iter(times.values()))
    timings = {}
    for name, values in times.items():
        ratios = [value / reference for value, reference in zip(values, first, strict=True)]
        lower, median, upper = statistics.quantiles(ratios, n=4, method="inclusive")
        timings[name] = Timing(statistics.median(values), median, lower, upper)
    return timings


def peak_mebibytes(step: Step, leaves: list[Tensor]) -> float:
    """Most memory that forward and backward hold at once on the CPU, in MiB."""
    gradients = [torch.ones_like(output) for output in step()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        torch.autograd.backward(step(), gradients)
    for leaf in leaves:
        leaf.grad = None
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20
