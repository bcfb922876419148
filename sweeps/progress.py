"""How long the runs of a sweep will take, by what those that are finished took."""

from __future__ import annotations

import heapq
import os
import sys
import time
from collections.abc import Iterable, Mapping

from .folder import State, SweepFolder
from .plan import PART, Run

# A part of a definition and the commands of its runs: a forward pass takes them about as long.
_Kind = tuple[str, ...]


class _Pace:
    """How fast finished runs were; one at least must be added before an estimate."""

    def __init__(self) -> None:
        self.runs = 0
        self.seconds = 0.0
        # Of those whose forward passes are known.
        self.counted_seconds = 0.0
        self.forwards = 0.0

    def add(self, run: Run, seconds: float) -> None:
        self.runs += 1
        self.seconds += seconds
        if run.forwards:
            self.counted_seconds += seconds
            self.forwards += run.forwards

    def estimate(self, run: Run) -> float:
        if run.forwards and self.forwards:
            return self.counted_seconds / self.forwards * run.forwards
        return self.seconds / self.runs


def expected_seconds(
    runs: Iterable[Run], finished: Iterable[Run], seconds: Mapping[str, float]
) -> dict[str, float]:
    """Estimate what each run takes from its beginning, by the finished ones of its kind.

    A kind is a part of the definition and the commands. A run takes the kind's seconds a forward
    pass times its forward passes, or the kind's mean where these are unknown; where none of the
    kind is finished, all finished runs stand in for it.

    Args:
        runs: to estimate.
        finished: runs.
        seconds: that finished ones took, by id; those of one at least.
    """
    paces: dict[_Kind, _Pace] = {}
    overall = _Pace()
    for run in finished:
        if run.id in seconds:
            paces.setdefault(_kind(run), _Pace()).add(run, seconds[run.id])
            overall.add(run, seconds[run.id])
    return {run.id: paces.get(_kind(run), overall).estimate(run) for run in runs}


def _kind(run: Run) -> _Kind:
    return (run.cell.get(PART, ""), *(stage.command for stage in run.stages))


def spent_seconds(folder: SweepFolder, state: State) -> dict[str, float]:
    """Seconds that were spent on the runs that are not finished, where it was noted."""
    begun = {entry.name for entry in os.scandir(folder.path / "progress")}
    spent = {}
    for id in (*state.running, *state.remaining):
        if f"{id}.json" in begun:
            spent[id] = folder.read_progress(id)["seconds"]
    for id in state.running:
        if id in spent:
            # It was noted when the attempt or its present step began.
            spent[id] += max(0.0, time.time() - folder.progress_path(id).stat().st_mtime)
    return spent


def makespan(seconds: Iterable[float], at_once: int) -> float:
    """Seconds until the last job has ended, if each starts when one before it ends.

    Args:
        seconds: of each job, in the order in which they start.
        at_once: jobs at the same time, at least 1.
    """
    ends = [0.0] * at_once
    for each in seconds:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


class Tally:
    """Says that one of several jobs has ended, and how long the others take.

    Args:
        total: number of jobs.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended = 0
        self.started = time.monotonic()

    def say(self, text: str, share: float | None = None) -> None:
        """Count a job that has ended and print how.

        Args:
            text: what is said of it.
            share: of all the work that has ended with it, in (0, 1]; default: of the jobs.
        """
        self.ended += 1
        line = f"[{self.ended}/{self.total}] {text}"
        if self.ended < self.total:
            line += f"; {duration(self.seconds_left(share or self.ended / self.total))} left"
        print(line, file=sys.stderr, flush=True)

    def seconds_left(self, share: float) -> float:
        """Estimate from the share of the work that has ended."""
        return (time.monotonic() - self.started) * (1 - share) / share


def duration(seconds: float) -> str:
    """Write a time in its two largest units, such as "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
