"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A run that is told to end saves first.
GRACE_SECONDS = 20.0


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group: it led a session; by force after a while."""
    _signal_group(process, signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        _signal_group(process, signal.SIGKILL)
        process.wait()
    # What it leaves behind, such as loaders of data, would hold the run's lock.
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], kind: int) -> None:
    try:
        os.killpg(process.pid, kind)
    except ProcessLookupError:
        return  # Nobody is left.


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143), so that `finally` clauses end the children."""

    def leave(number: int, frame: FrameType | None) -> None:
        # Once: another must not interrupt the ending of the children.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
