"""Runs on this machine, several at the same time."""

from __future__ import annotations

import subprocess
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .folder import SweepFolder
from .job import DONE, FAILED, HELD, start_job
from .places import Place, local_workers, visible_gpus
from .processes import end
from .watching import Watch

POLL_SECONDS = 0.05
# Between looks at runs that another sweep is making.
HELD_SECONDS = 2.0
# A job whose process was killed from outside is begun again so often.
RESTARTS = 2


class _Worker(NamedTuple):
    id: str
    process: subprocess.Popen[bytes]
    share: dict[str, str]


def launch_local(folder: SweepFolder, ids: Sequence[str], place: Place) -> None:
    """Make runs on this machine; those that another process is making are waited for.

    However this ends, its jobs end before it.
    """
    watch = Watch(folder, ids)
    free = deque(local_workers(place.workers, visible_gpus()))
    waiting, held = deque(ids), deque[str]()
    restarts = dict.fromkeys(ids, 0)
    next_look = 0.0
    working: list[_Worker] = []
    try:
        while watch.pending:
            # Their maker may have been killed, and then they are ours.
            if held and time.monotonic() >= next_look:
                watch.look(held)
                waiting.extend(id for id in held if id in watch.pending)
                held.clear()
                next_look = time.monotonic() + HELD_SECONDS
            while waiting and free:
                id = waiting.popleft()
                if folder.is_running(id):
                    held.append(id)
                    continue
                share = free.popleft()
                working.append(_Worker(id, start_job(folder.path, id, share), share))
            for worker in [each for each in working if each.process.poll() is not None]:
                working.remove(worker)
                free.append(worker.share)
                _settle(worker, watch, waiting, held, restarts)
            time.sleep(POLL_SECONDS)
    finally:
        for worker in working:
            worker.process.terminate()
        for worker in working:
            end(worker.process)


def _settle(
    worker: _Worker,
    watch: Watch,
    waiting: deque[str],
    held: deque[str],
    restarts: dict[str, int],
) -> None:
    """Say how a job ended, and put its run where it is tried again if it should be."""
    id, code = worker.id, worker.process.returncode
    if code in (DONE, FAILED):
        watch.look([id])
    elif code == HELD:
        held.append(id)
    elif code < 0 and restarts[id] < RESTARTS:
        restarts[id] += 1
        waiting.append(id)
    else:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        watch.give_up(id, f"its process {how}, see {watch.folder.log_path(id)}")
