"""Signals that stop a run where it can go on: SIGTERM, as of a preempted job, and Ctrl-C.

They raise `Stopped`, but never in the middle of what must be whole:

    try:
        for batch in batches:
            with undisturbed():
                step(batch)
    except Stopped:
        save()
        raise
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType, TracebackType

PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to end; `exit_code` is what a shell makes of that."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number

    def __str__(self) -> str:
        return signal.Signals(self.exit_code - 128).name


class _State:
    """Of this process: how many `undisturbed` it is in, and the signals that came."""

    depth = 0
    waiting: int | None = None
    raised: int | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C raise `Stopped` in here; no effect outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _State.waiting, _State.raised = None, None
    before = {
        number: signal.signal(number, _on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    report, sys.unraisablehook = sys.unraisablehook, _keep_what_del_swallows
    try:
        yield
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)
        _State.waiting, _State.raised = None, None


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _State.raised and number == signal.SIGTERM:
        return  # Sent to the process and to its group, it comes twice.
    if _State.depth and not (_State.waiting and number == signal.SIGINT):
        _State.waiting = number
        return
    # Ctrl-C a second time does not wait.
    _State.raised = number
    raise Stopped(number)


def _keep_what_del_swallows(unraisable: sys.UnraisableHookArgs) -> None:
    # A `Stopped` in a `__del__`, as of a data loader, cannot leave it. It is in `_State.raised`,
    # and the next `undisturbed` raises it again, so nothing is to be said here.
    if not isinstance(unraisable.exc_value, Stopped):
        sys.__unraisablehook__(unraisable)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off a signal that comes in here to the end of the block, which then raises `Stopped`.

    So does one whose `Stopped` was lost before, as in `__del__` or where a process is forked.
    """
    _State.depth += 1
    try:
        yield
    finally:
        _State.depth -= 1
    number = _State.waiting or _State.raised
    if number is not None and not _State.depth:
        _State.waiting, _State.raised = None, number
        raise Stopped(number)


def die_with_parent(kind: int, parent: int | None = None) -> Callable[[], None]:
    """Return what a child calls so that, on Linux, it gets the signal `kind` when we are gone.

    Elsewhere nothing can be done about a parent that is killed with SIGKILL.

    Args:
        kind: number of the signal.
        parent: process id; None: this process.
    """
    if sys.platform != "linux":
        return lambda: None
    # Loaded here, because little is safe between fork and exec.
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid() if parent is None else parent

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(kind), 0, 0, 0)
        if os.getppid() != parent:
            # It was gone before we asked.
            os._exit(1)

    return ask


def worker_setup() -> Callable[[int], None]:
    """Return the `worker_init_fn` of a DataLoader: signals are its parent's, whose end is its own.

    A signal to the whole group would otherwise end the workers while the parent still saves.
    """
    return partial(_set_up_worker, os.getpid())


def _set_up_worker(parent: int, worker: int) -> None:
    if sys.platform != "linux":
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Blocked here, so that the thread below is the one that gets it and sees who has sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()
    sys.excepthook = _say_unless_hung_up
    # Behind a fork server it is not our child; torch's own watch then ends it within seconds.
    if os.getppid() == parent:
        die_with_parent(signal.SIGKILL, parent)()


def _say_unless_hung_up(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    # A parent that is stopped may hang up on the thread that hands it a batch. What goes wrong
    # with the batch itself comes another way.
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _end_when_told(by: int) -> None:
    """End this process by a SIGTERM of one process, and by no other's."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != by:
        pass
    os._exit(0)
