"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
GRACE_SECONDS = 10.0


def die_with_parent(kind: int) -> Callable[[], None]:
    """A `preexec_fn`: on Linux, the kernel sends the child `kind` when its parent is gone.

    Elsewhere nothing can be done about a parent that is killed with SIGKILL.
    """
    if sys.platform != "linux":
        return lambda: None
    # Loaded here, because little is safe between fork and exec.
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(kind), 0, 0, 0)
        if os.getppid() != parent:
            # It was gone before we asked.
            os._exit(1)

    return ask


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
