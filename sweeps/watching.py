"""What is said on stderr while a sweep runs: a line a run that ended, with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from .folder import SweepFolder
from .time_left import expected_seconds


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


class Watch:
    """Follows runs by their files, whoever makes them.

    Args:
        folder: of the sweep.
        ids: of the runs to follow.

    Attributes:
        pending: ids of runs that have neither finished nor failed.
    """

    def __init__(self, folder: SweepFolder, ids: Iterable[str]) -> None:
        self.folder = folder
        self.pending = dict.fromkeys(ids)
        self._runs = [folder.runs[id] for id in self.pending]
        self._seconds: dict[str, float] = {}
        self._tally = Tally(len(self.pending))

    def look(self, ids: Iterable[str] | None = None) -> None:
        """Say which of the pending runs, or of these among them, have ended by now."""
        ended = []
        for id in dict.fromkeys(self.pending if ids is None else ids):
            if id not in self.pending:
                continue
            if self.folder.is_done(id):
                self._seconds[id] = self.folder.read_progress(id)["seconds"]
                ended.append((id, "done", duration(self._seconds[id])))
            elif self.folder.has_failed(id) and not self.folder.is_running(id):
                ended.append((id, "failed", self.folder.read_failure(id)))
        if ended:
            self._ended(ended)

    def give_up(self, id: str, why: str) -> None:
        """Follow a run no longer that cannot be made now."""
        self._ended([(id, "stopped", why)])

    def _ended(self, ended: Sequence[tuple[str, str, str]]) -> None:
        for id, _, _ in ended:
            del self.pending[id]
        # Once for all of them, because it looks at every run of the sweep.
        share = self._share_ended()
        for id, how, what in ended:
            self._tally.say(f"{how} {self.folder.runs[id].title} ({id}): {what}", share)

    def _share_ended(self) -> float | None:
        """Share of all runs' seconds, as they are expected, that the ended ones take."""
        if not self._seconds:
            return None
        finished = [run for run in self._runs if run.id in self._seconds]
        expected = expected_seconds(self._runs, finished, self._seconds)
        ended = sum(expected[run.id] for run in self._runs if run.id not in self.pending)
        return ended / sum(expected.values()) if ended else None


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
