"""Processes on this machine, as many at the same time as there are shares of it."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from .processes import end

Share = dict[str, str]
Key = TypeVar("Key")


class _Worker(NamedTuple):
    key: object
    process: subprocess.Popen[bytes]
    share: Share


class Pool(Generic[Key]):
    """Processes that lead sessions of their own; however a `with` block ends, they end with it.

    Args:
        shares: of the machine, see `places.shares`; a process has one while it runs.
    """

    def __init__(self, shares: Iterable[Share]) -> None:
        self._free = deque(shares)
        self._working: list[_Worker] = []

    def __enter__(self) -> Pool[Key]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # All are asked first, so that they end at the same time.
        for worker in self._working:
            worker.process.terminate()
        for worker in self._working:
            end(worker.process)

    def has_room(self) -> bool:
        """Whether a share is free."""
        return bool(self._free)

    def is_busy(self) -> bool:
        """Whether a process runs, or has ended and was not asked for."""
        return bool(self._working)

    def start(self, key: Key, start: Callable[[Share], subprocess.Popen[bytes]]) -> None:
        """Start a process on a free share; there must be one."""
        share = self._free.popleft()
        self._working.append(_Worker(key, start(share), share))

    def take_ended(self) -> list[tuple[Key, int]]:
        """Return key and exit code of the processes that have ended since the last call."""
        ended = [worker for worker in self._working if worker.process.poll() is not None]
        for worker in ended:
            self._working.remove(worker)
            self._free.append(worker.share)
        return [(worker.key, worker.process.returncode) for worker in ended]  # type: ignore[misc]
