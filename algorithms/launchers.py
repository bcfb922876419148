"""Adds launchers to DomainBed's, wraps them, and says which jobs of a sweep did not finish."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core_tuning.config import DOMAINBED_LAUNCHERS
from core_tuning.errors import UserError

from .checkout import ROOT_VARIABLE

Launcher = Callable[[list[str]], object]

STOCK_HEAD = "python -m domainbed.scripts.train"
# Of DomainBed's launchers, the one that starts nothing, and those that wait for their jobs.
PRINTING = "dummy"
WAITING = ("local", "multi_gpu")
# The last line of a traceback, or of a mistake that `core-tuning` reports.
_ENDED_IN_ERROR = re.compile(r"^([\w.]*(Error|Exception|Interrupt|Exit)\b|core-tuning: error: )")


def rewrite(command: str, root: Path, extra: Sequence[str]) -> str:
    """Turn the command of a job into one that knows our names, wherever a launcher runs it.

    Args:
        command: as DomainBed's sweep makes it, for a shell.
        root: of the checkout to use.
        extra: arguments of train to append.

    Raises:
        UserError: the checkout's sweep makes other commands.
    """
    if not command.startswith(f"{STOCK_HEAD} "):
        raise UserError(
            f"This checkout's sweep starts its jobs by '{command.split(' --')[0]}' where "
            f"'{STOCK_HEAD}' was expected: use another, or 'core-tuning domainbed enable'."
        )
    head = (
        f"{ROOT_VARIABLE}={shlex.quote(str(root))} {shlex.quote(sys.executable)} "
        "-m core_tuning domainbed train"
    )
    return " ".join([head + command.removeprefix(STOCK_HEAD), *map(shlex.quote, extra)])


def offered() -> Any:
    """Return the module that offers launchers besides DomainBed's, all of which wait."""
    return importlib.import_module(DOMAINBED_LAUNCHERS)


def add_launchers(registry: MutableMapping[str, Launcher], place: Any = None) -> None:
    """Add the offered launchers to DomainBed's registry.

    Args:
        registry: to change.
        place: where they run jobs, of `offered().take_place`; None reads it when they are called.

    Raises:
        UserError: the checkout has another launcher by the name of one; nothing was added.
    """
    ours = offered().launchers(place)
    for name, launcher in ours.items():
        present = registry.get(name, launcher)
        if not str(getattr(present, "__module__", "")).startswith("core_tuning."):
            raise UserError(
                f"This checkout has a launcher '{name}' of its own, which Core-tuning's would "
                "hide: rename that one, or use another checkout."
            )
    registry.update(ours)


@contextmanager
def offered_launchers(registry: MutableMapping[str, Launcher], place: Any) -> Iterator[None]:
    """`add_launchers` for a while."""
    originals = dict(registry)
    add_launchers(registry, place)
    try:
        yield
    finally:
        registry.clear()
        registry.update(originals)


@contextmanager
def rewriting_launchers(
    registry: MutableMapping[str, Launcher], root: Path, extra: Sequence[str]
) -> Iterator[None]:
    """Make every launcher of DomainBed's registry start rewritten commands for a while."""
    originals = dict(registry)
    for name, launcher in originals.items():
        registry[name] = _rewriting(launcher, root, extra)
    try:
        yield
    finally:
        registry.update(originals)


def _rewriting(launcher: Launcher, root: Path, extra: Sequence[str]) -> Launcher:
    def launch(commands: list[str]) -> object:
        return launcher([rewrite(command, root, extra) for command in commands])

    return launch


def report(folders: Sequence[Path], launcher: str) -> int:
    """Print the jobs of a sweep that left no `done`; return the exit code: 1 if one failed.

    After a launcher that waits for its jobs, every such job failed. Others, such as one for Slurm,
    return while jobs wait or run: there a job failed if its err.txt ends in an error, and the
    rest, which is not finished yet, is only counted.
    """
    if launcher == PRINTING:
        return 0
    waits = launcher in WAITING or launcher in offered().NAMES
    open_jobs = [folder for folder in folders if not (folder / "done").exists()]
    failed = [folder for folder in open_jobs if waits or _ENDED_IN_ERROR.match(last_error(folder))]
    if len(open_jobs) > len(failed):
        print(f"{len(open_jobs) - len(failed)} of {len(folders)} jobs are not finished yet.")
    if not failed:
        return 0
    print(
        f"core-tuning: {len(failed)} of {len(folders)} jobs left no 'done'; after mending what "
        "stopped them, run the sweep with delete_incomplete in place of launch, then launch again:",
        file=sys.stderr,
    )
    for folder in failed:
        print(f"  {folder}: {last_error(folder) or 'nothing in err.txt'}", file=sys.stderr)
    return 1


def last_error(folder: Path) -> str:
    """Return the last line of a job's err.txt, or ""."""
    file = folder / "err.txt"
    if not file.is_file():
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    # A progress bar or warning overwrites its line.
    written = [line.split("\r")[-1].strip() for line in lines]
    return next((line for line in reversed(written) if line), "")
