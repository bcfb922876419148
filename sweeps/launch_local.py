"""Runs and commands on this machine, several at the same time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from functools import partial

from .commands import Command, start_command
from .folder import SweepFolder
from .job import DONE, FAILED, HELD, INTERRUPTED, start_job
from .places import Place, local_workers, visible_gpus
from .pool import Pool
from .watching import Tally, Watch

POLL_SECONDS = 0.05
# Between looks at runs that another sweep is making.
HELD_SECONDS = 2.0
# A job whose process was ended from outside goes on so often.
RESTARTS = 2


def launch_local(folder: SweepFolder, ids: Sequence[str], place: Place) -> None:
    """Make runs on this machine; those that another process is making are waited for.

    However this ends, its jobs end before it.
    """
    watch = Watch(folder, ids)
    waiting, held = deque(ids), deque[str]()
    restarts = dict.fromkeys(ids, 0)
    next_look = 0.0
    pool: Pool[str] = Pool(local_workers(place.workers, visible_gpus()))
    with pool:
        while watch.pending:
            # Their maker may have been killed, and then they are ours.
            if held and time.monotonic() >= next_look:
                watch.look(held)
                waiting.extend(id for id in held if id in watch.pending)
                held.clear()
                next_look = time.monotonic() + HELD_SECONDS
            while waiting and pool.has_room():
                id = waiting.popleft()
                if folder.is_running(id):
                    held.append(id)
                    continue
                pool.start(id, partial(start_job, folder.path, id))
            for id, code in pool.take_ended():
                _settle(id, code, watch, waiting, held, restarts)
            time.sleep(POLL_SECONDS)


def run_local(commands: Sequence[Command], place: Place) -> None:
    """Run commands on this machine; however this ends, they end before it."""
    tally = Tally(len(commands))
    waiting = deque(commands)
    pool: Pool[Command] = Pool(local_workers(place.workers, visible_gpus()))
    with pool:
        while waiting or pool.is_busy():
            while waiting and pool.has_room():
                command = waiting.popleft()
                pool.start(command, partial(start_command, command))
            for command, code in pool.take_ended():
                tally.say(command.ended(code))
            time.sleep(POLL_SECONDS)


def _settle(
    id: str,
    code: int,
    watch: Watch,
    waiting: deque[str],
    held: deque[str],
    restarts: dict[str, int],
) -> None:
    """Say how a job ended, and put its run where it is tried again if it should be."""
    if code in (DONE, FAILED):
        watch.look([id])
    elif code == HELD:
        held.append(id)
    elif (code < 0 or code == INTERRUPTED) and restarts[id] < RESTARTS:
        restarts[id] += 1
        waiting.append(id)
    else:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        watch.give_up(id, f"its process {how}, see {watch.folder.log_path(id)}")
