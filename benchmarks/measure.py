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
# Clock cycles, some 10 ms, that a GPU sleeps before a step, whose launches queue up meanwhile as
# they do behind an encoder: what is timed is the GPU's work, not Python's.
SLEEP_FIRST = 20_000_000


class Timing(NamedTuple):
    """Medians and quartiles: of a step's milliseconds, and of its ratios to the first step."""

    milliseconds: float
    ratio: float
    lower: float
    upper: float
    lower_milliseconds: float
    upper_milliseconds: float


def measured(step: Callable[[], object], device: torch.device | str = "cpu") -> Step:
    """Make a step of a whole training step, which sends gradient nowhere."""
    done = torch.zeros((), device=device, requires_grad=True)

    def run() -> list[Tensor]:
        step()
        return [done]

    return run


def milliseconds(
    step: Step, leaves: list[Tensor], backward: bool, gradients: list[Tensor]
) -> float:
    """Time one step; the gradients of its outputs, made beforehand, name the device to time."""
    events = []
    if gradients[0].is_cuda:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        torch.cuda._sleep(SLEEP_FIRST)
        events[0].record()
    started = time.perf_counter()
    outputs = step()
    if backward:
        torch.autograd.backward(outputs, gradients)
    elapsed = 1e3 * (time.perf_counter() - started)
    if events:
        events[1].record()
        events[1].synchronize()
        elapsed = events[0].elapsed_time(events[1])
    for leaf in leaves:
        leaf.grad = None
    return elapsed


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
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(middle, median, lower, upper, low, high)
    return timings


def peak_mebibytes(step: Step, leaves: list[Tensor]) -> float:
    """Most memory that forward and backward hold at once, above what is held before, in MiB."""
    gradients = [torch.ones_like(output) for output in step()]
    if gradients[0].is_cuda:
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        torch.autograd.backward(step(), gradients)
        peak = torch.cuda.max_memory_allocated()
        for leaf in leaves:
            leaf.grad = None
        return (peak - held) / 2**20
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
