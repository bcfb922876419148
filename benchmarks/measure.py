"""Timing, peak memory and tables, for the scripts beside this file."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from core_tuning.report.tables import Table, text

Step = Callable[[], object]
# Clock cycles, some 10 ms, that a GPU sleeps before a step, whose launches queue up meanwhile as
# they do behind an encoder: what is timed is the GPU's work, not Python's.
SLEEP_FIRST = 20_000_000


class Spread(NamedTuple):
    """The quartiles of several measurements."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Compute them of two measurements or more."""
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.lower:.4g} to {self.upper:.4g})"


class Timing(NamedTuple):
    """Milliseconds of a step, and its ratios to the first step's in the same turns."""

    milliseconds: Spread
    ratios: Spread


def both_ways(forward: Callable[[], list[Tensor]], leaves: Sequence[Tensor]) -> Step:
    """Make a step of a forward pass and of the backward pass from all its outputs to `leaves`."""
    # Made beforehand, as what comes behind would have made them.
    gradients = [torch.ones_like(output) for output in forward()]
    return lambda: torch.autograd.grad(forward(), leaves, gradients, allow_unused=True)


def time_once(step: Step, device: str) -> float:
    """Return the milliseconds of one step: the GPU's own, or the wall clock's."""
    if device == "cpu":
        started = time.perf_counter()
        step()
        return 1e3 * (time.perf_counter() - started)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(SLEEP_FIRST)
    first.record()
    step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def compare(
    steps: Mapping[str, Step], *, repeats: int, device: str = "cpu", warm_up: int = 2
) -> dict[str, Timing]:
    """Time steps in turn, so that a machine that drifts does so for all of them."""
    turns = [[time_once(step, device) for step in steps.values()] for _ in range(warm_up + repeats)]
    times = list(zip(*turns[warm_up:], strict=True))
    return {
        name: Timing(
            Spread.of(own), Spread.of([t / first for t, first in zip(own, times[0], strict=True)])
        )
        for name, own in zip(steps, times, strict=True)
    }


def peak_mebibytes(step: Step, device: str = "cpu") -> float:
    """Return the most memory in MiB that a step holds at once, above what is held before."""
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table; numbers have four digits."""
    shown = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    print(f"\n{text(Table(header, shown, title))}", flush=True)
