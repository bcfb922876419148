"""One run of a sweep, as `python -m core_tuning.sweeps.job FOLDER ID`: what launchers start.

This process holds the run's lock while its stages run as children; they inherit the lock and die
with it. It ends with `DONE`, `FAILED`, `HELD` or `INTERRUPTED`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.files import write_atomically
from core_tuning.options import Parser
from core_tuning.stopping import die_with_parent

from .folder import SweepFolder, open_sweep
from .launch import HELD, INTERRUPTED, end, sigterm_as_exit
from .locks import take
from .plan import DOMAINBED, Stage

DONE, FAILED = 0, 3
# Of a stage that was told to end, by SIGTERM or Ctrl-C: it has saved, and goes on another time.
_TOLD_TO_END = (143, 130, -signal.SIGTERM, -signal.SIGINT)
_TAIL_BYTES = 16384


def main(argv: list[str]) -> int:
    """Make one run; return `DONE`, `FAILED`, `HELD` (another has it), `INTERRUPTED`, or 2."""
    parser = Parser(prog="python -m core_tuning.sweeps.job", description="Make a run of a sweep.")
    parser.add_argument("folder", type=Path, help="the sweep's")
    parser.add_argument("id", help="of the run")
    try:
        options = parser.parse_args(argv)
        with sigterm_as_exit():
            return run_job(options.folder, options.id)
    except UserError as error:
        print(f"core-tuning: error: {error}", file=sys.stderr)
        return 2


def run_job(path: Path, id: str) -> int:
    """Make a run, unless it is done, failed before or is being made.

    Raises:
        UserError: `path` is no sweep's folder, or has no such run.
    """
    folder = open_sweep(path)
    if id not in folder.runs:
        raise UserError(f"'{id}' is not a run of {path}: 'core-tuning sweep status' lists them.")
    lock = take(folder.lock_path(id))
    if lock is None:
        return HELD
    try:
        if folder.is_done(id):
            return DONE
        if folder.has_failed(id):
            return FAILED
        return _attempt(folder, id, lock)
    finally:
        os.close(lock)


def _attempt(folder: SweepFolder, id: str, lock: int) -> int:
    run = folder.runs[id]
    progress = folder.read_progress(id)
    if not folder.run_path(id).exists():
        progress["stages"] = 0
    progress["attempts"] += 1
    _write(folder.progress_path(id), progress)
    before, started = progress["seconds"], time.monotonic()
    try:
        while progress["stages"] < len(run.stages):
            stage = run.stages[progress["stages"]]
            code = _run_stage(folder, id, stage, lock)
            progress["seconds"] = before + time.monotonic() - started
            if code in _TOLD_TO_END:
                return INTERRUPTED
            if code:
                return _fail(folder, id, code, progress["attempts"], time.monotonic() - started)
            progress["stages"] += 1
            _write(folder.progress_path(id), progress)
        if folder.is_done(id):
            return DONE
        # Begun anew on retry: one of the stages did not do what it should.
        progress["stages"] = 0
        return _fail(folder, id, 0, progress["attempts"], time.monotonic() - started)
    finally:
        progress["seconds"] = before + time.monotonic() - started
        _write(folder.progress_path(id), progress)


def _run_stage(folder: SweepFolder, id: str, stage: Stage, lock: int) -> int:
    if stage.command == DOMAINBED and folder.run_path(id).exists():
        # It cannot resume, and would write its results behind those of the attempt before.
        shutil.rmtree(folder.run_path(id))
    prefix = folder.command or [sys.executable, "-m", "core_tuning"]
    words = stage.argv(str(folder.run_path(id)), folder.runs[id].seed)
    with folder.log_path(id).open("ab") as log:
        log.write(f"$ {' '.join([*prefix, *words])}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                [*prefix, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A group of its own, which is ended as a whole.
                start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
                pass_fds=(lock,),
            )
        except OSError as error:
            log.write(f"{prefix[0]} cannot be started: {error.strerror}\n".encode())
            return 127
        try:
            return process.wait()
        finally:
            end(process)


def _fail(folder: SweepFolder, id: str, code: int, attempts: int, seconds: float) -> int:
    said = last_line(folder.log_path(id))
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", as the kernel does when memory runs out" if name == "SIGKILL" else ""
        said = f"killed by {name}{hint}; last line: {said}"
    elif code == 0:
        said = f"its commands ended well but left no {folder.runs[id].done}; last line: {said}"
    failure = {"exit": code, "last_line": said, "attempts": attempts, "seconds": seconds}
    _write(folder.failure_path(id), failure)
    return FAILED


def last_line(log: Path) -> str:
    """Return the last line that a run's last command printed; "" if it printed none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace")
    # A progress bar overwrites its line.
    lines = [line.split("\r")[-1].strip() for line in text.split("\n")]
    for line in reversed(lines):
        # What stands above is an earlier attempt's or stage's.
        if line.startswith("$ "):
            return ""
        if line:
            return line
    return ""


def _write(path: Path, contents: dict[str, object]) -> None:
    write_atomically(path, (json.dumps(contents) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
