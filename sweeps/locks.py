"""Locks that the kernel gives back when their holders are gone, however they ended.

A lock belongs to the open file: a process that inherits it keeps it, so that a run whose wrapper
was killed stays locked until the run itself has ended.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

from core_tuning.errors import UserError

# A look whether a lock is held takes it for an instant, and a killed run takes one to end.
PATIENCE_SECONDS = 1.0
_PAUSE_SECONDS = 0.05


def take(path: Path, *, patience: float = PATIENCE_SECONDS) -> int | None:
    """Take a lock and note who holds it.

    Args:
        path: of the lock's file, made if it is missing.
        patience: seconds to try for.

    Returns:
        The open file's descriptor, to be closed or left to the kernel; None if another holds it.

    Raises:
        UserError: the file system has no locks, or the file cannot be written.
    """
    deadline = time.monotonic() + patience
    file = _open(path)
    while not _try(path, file, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            os.close(file)
            return None
        time.sleep(_PAUSE_SECONDS)
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
    os.ftruncate(file, 0)
    os.write(file, json.dumps(holder).encode())
    return file


def is_held(path: Path) -> bool:
    """Whether a process holds a lock; the file must exist."""
    file = _open(path)
    try:
        # Shared, so that two that look at once do not take each other for the holder.
        return not _try(path, file, fcntl.LOCK_SH)
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"The lock {path} cannot be opened ({error.strerror}): give yourself the right to "
            "write there, or name another folder with --output."
        ) from error


def _try(path: Path, file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(file)
        raise UserError(
            f"The file system of {path} has no locks ({error.strerror}), without which a run "
            "might be made twice: name a folder elsewhere with --output."
        ) from error
    return True
