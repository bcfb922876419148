"""A sweep's folder: its runs, what became of each, and who is at work on them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.files import field, read_json, write_atomically

from .expand import Sweep
from .locks import is_held, take
from .plan import FOLDER, Run, Stage
from .reading import what_it_runs

# Of the lock of the folder as a whole; no run has a dot in its id.
_STARTING = ".sweep"
_STARTING_SECONDS = 60.0
# Of a note on a run's progress.
_PROGRESS = {"seconds": (int, float)}


class State(NamedTuple):
    """What became of the runs, by id, in the order of the sweep.

    Attributes:
        done: finished.
        running: held by a process that is alive.
        failed: with the last line of what each printed.
        remaining: not begun, or stopped half-way.
        seconds: that each finished run took, where it was noted.
    """

    done: list[str]
    running: list[str]
    failed: dict[str, str]
    remaining: list[str]
    seconds: dict[str, float]


class SweepFolder:
    """The files of a sweep; `start_sweep` or `open_sweep` gives one.

    Args:
        path: of the folder.
        contents: of its sweep.json.

    Attributes:
        runs: by id.
        environment: versions and the command line of who started or extended the sweep last.
        command: what is put before a stage's arguments; None for this Python's `-m core_tuning`.
    """

    def __init__(self, path: Path, contents: dict[str, Any]) -> None:
        self.path = path.resolve()
        self.name: str = contents["name"]
        self.title: str = contents["title"]
        self.definition: str = contents["definition"]
        self.command: list[str] | None = contents["command"]
        self.environment: dict[str, Any] = contents.get("environment", {})
        self.runs = {run.id: run for run in map(_run_from, contents["runs"])}

    def run_path(self, id: str) -> Path:
        """Folder of a run."""
        return self.path / "runs" / id

    def log_path(self, id: str) -> Path:
        """Output of a run's attempts so far."""
        return self.path / "logs" / f"{id}.log"

    def lock_path(self, id: str) -> Path:
        """Lock of a run."""
        return self.path / "locks" / id

    def failure_path(self, id: str) -> Path:
        """How a run failed; missing if it did not."""
        return self.path / "failures" / f"{id}.json"

    def progress_path(self, id: str) -> Path:
        """Attempts, seconds and finished stages of a run."""
        return self.path / "progress" / f"{id}.json"

    def is_done(self, id: str) -> bool:
        """Whether a run is finished."""
        return (self.run_path(id) / self.runs[id].done).exists()

    def has_failed(self, id: str) -> bool:
        """Whether a run has failed and was not retried."""
        return self.failure_path(id).exists()

    def is_running(self, id: str) -> bool:
        """Whether a process holds a run."""
        path = self.lock_path(id)
        return path.exists() and is_held(path)

    def read_failure(self, id: str) -> str:
        """Last line of what a failed run printed; "" if it was just retried."""
        failure = _read_if_there(str(self.failure_path(id)), {"last_line": str})
        return failure["last_line"] if failure else ""

    def read_progress(self, id: str) -> dict[str, Any]:
        """{"attempts", "seconds" of those whose end was seen, finished "stages"} of a run."""
        found = _read_if_there(str(self.progress_path(id)), _PROGRESS)
        return {"attempts": 0, "seconds": 0.0, "stages": 0, **(found or {})}


def start_sweep(path: Path, sweep: Sweep, command: list[str] | None = None) -> SweepFolder:
    """Make a sweep's folder, or add runs to the one that is there.

    Args:
        path: of the folder.
        sweep: whose runs to add; those with other seeds that the folder has already stay.
        command: see `SweepFolder`.

    Raises:
        UserError: the folder is a file, holds something else or another sweep, or cannot be
            written; nothing was changed.
    """
    _check_place(path)
    try:
        for name in ("runs", "logs", "failures", "locks", "progress"):
            (path / name).mkdir(parents=True, exist_ok=True)
        with _starting(path):
            before = open_sweep(path) if _file(path).exists() else None
            if before is not None:
                _check_same(before, sweep)
            runs = {**(before.runs if before else {}), **{run.id: run for run in sweep.runs}}
            contents = {
                "name": sweep.name,
                "title": sweep.title,
                "definition": sweep.definition,
                "command": command,
                "runs": [_contents(run) for run in runs.values()],
                "environment": _environment(),
            }
            write_atomically(_file(path), (json.dumps(contents, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(
            f"The sweep's folder {path} cannot be written ({error.strerror}): name another with "
            "--output."
        ) from error
    return open_sweep(path)


def open_sweep(path: Path) -> SweepFolder:
    """Read a sweep's folder.

    Raises:
        UserError: it is none, or its sweep.json is damaged.
    """
    if not _file(path).exists():
        raise UserError(
            f"{path} is not a sweep's folder: it has no sweep.json; start one with "
            "'core-tuning sweep run', or name it with --output."
        )
    contents = read_json(_file(path))
    field(contents, "definition", str, _file(path))
    try:
        return SweepFolder(path, contents)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{_file(path)} is damaged ({error!r}): expected what 'core-tuning sweep run' writes; "
            "name another folder with --output."
        ) from error


def state_of(folder: SweepFolder, ids: Iterable[str] | None = None) -> State:
    """Say what became of runs, of all by default."""
    state = State([], [], {}, [], {})
    locks, failures = (
        {entry.name for entry in os.scandir(folder.path / name)} for name in ("locks", "failures")
    )
    top = str(folder.path)
    for id in folder.runs if ids is None else ids:
        # Strings: ten thousand times a Path costs more than all else.
        if os.path.exists(f"{top}/runs/{id}/{folder.runs[id].done}"):  # noqa: PTH110
            state.done.append(id)
            progress = _read_if_there(f"{top}/progress/{id}.json", _PROGRESS)
            if progress is not None:
                state.seconds[id] = progress["seconds"]
        elif id in locks and is_held(folder.lock_path(id)):
            state.running.append(id)
        elif f"{id}.json" in failures:
            state.failed[id] = folder.read_failure(id)
        else:
            state.remaining.append(id)
    return state


def _file(path: Path) -> Path:
    return path / "sweep.json"


def _read_if_there(path: str, kinds: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read a note on a run; one that is damaged is said to be, and does not stop a sweep."""
    if not os.path.exists(path):  # noqa: PTH110
        return None
    try:
        contents: dict[str, Any] = read_json(Path(path))
        for name, kind in kinds.items():
            field(contents, name, kind, Path(path))
    except UserError as error:
        print(f"warning: {error} It is taken for missing.", file=sys.stderr)
        return None
    return contents


def _contents(run: Run) -> dict[str, Any]:
    return {**run._asdict(), "stages": [stage._asdict() for stage in run.stages]}


def _run_from(contents: dict[str, Any]) -> Run:
    stages = tuple(Stage(**stage) for stage in contents["stages"])
    return Run(**{**contents, "stages": stages})


def _check_place(path: Path) -> None:
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise UserError(f"{place} is a file, not a folder: name another with --output.")
            break
    # What a kill left before sweep.json was written is no reason to refuse.
    strange = path.is_dir() and any(
        entry.name not in ("runs", "logs", "failures", "locks", "progress")
        and not entry.name.startswith(".")
        for entry in path.iterdir()
    )
    if strange and not _file(path).exists():
        raise UserError(
            f"The folder {path} is not empty and is not a sweep's (it has no sweep.json): name "
            "another with --output."
        )


def _check_same(before: SweepFolder, sweep: Sweep) -> None:
    for what, old, new in (
        ("sweep", before.name, sweep.name),
        ("line of the definition", *_first_difference(before.definition, sweep.definition)),
        ("command", *_other_settings(before.runs.values(), sweep.runs)),
    ):
        if old != new:
            raise UserError(
                f"The folder {before.path} is of another sweep, whose {what} is {old!r} and not "
                f"{new!r}: name another with --output."
            )


def _first_difference(old: str, new: str) -> tuple[str, str]:
    """The first lines that differ, where the definitions run different things; else ("", "")."""
    if what_it_runs(old) == what_it_runs(new):
        return "", ""
    first, second = old.splitlines(), new.splitlines()
    length = max(len(first), len(second))
    first += [""] * (length - len(first))
    second += [""] * (length - len(second))
    return next((pair for pair in zip(first, second, strict=True) if pair[0] != pair[1]), ("", ""))


def _other_settings(old: Iterable[Run], new: Iterable[Run]) -> tuple[str, str]:
    """Of a cell and seed that are there with other options, both commands; else ("", "")."""
    by_cell = {_cell(run): run for run in old}
    for run in new:
        other = by_cell.get(_cell(run), run)
        if other.id != run.id:
            return _words(other), _words(run)
    return "", ""


def _cell(run: Run) -> tuple[Any, ...]:
    return (run.seed, *sorted(run.cell.items()))


def _words(run: Run) -> str:
    return "; ".join(" ".join(argv) for argv in run.argvs(FOLDER))


@contextmanager
def _starting(path: Path) -> Iterator[None]:
    lock = take(path / "locks" / _STARTING, patience=_STARTING_SECONDS)
    if lock is None:
        raise UserError(f"Another process is starting a sweep in {path}: wait until it has.")
    try:
        yield
    finally:
        os.close(lock)


def _environment() -> dict[str, Any]:
    return {
        "command": " ".join(["core-tuning", *sys.argv[1:]]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: importlib.metadata.version(name) for name in ("core-tuning", "torch")},
    }
