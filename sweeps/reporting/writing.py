"""Puts a report's files where they belong: all of them at once, or none."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from core_tuning.errors import UserError
from core_tuning.files import harmless_cell

from .latex import latex
from .markdown import markdown
from .model import Report

# Says that a folder is a report, and which of its files are.
MARK = "report.json"
_MADE_BY = "core-tuning sweep report"


def check_target(target: Path, name: str) -> None:
    """Check that a folder can be replaced by a report: it is missing, empty, or an older one.

    Args:
        target: the folder.
        name: of the sweep that the report is of.

    Raises:
        UserError: it is a file, holds a report of another sweep, or anything that `write_report`
            has not put there.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise UserError(f"{target} is a file, not a folder: name another with --to.")
    there = _files(target)
    if not there:
        return
    mark = _marked(target / MARK)
    if mark is None:
        raise UserError(
            f"The folder {target} is not empty and is no report (its {MARK} is missing or another "
            "program's): name another with --to."
        )
    if mark["name"] != name:
        raise UserError(
            f"The report in {target} is of another sweep, '{mark['name']}' and not '{name}': "
            "delete it, or name another folder with --to."
        )
    for file in there:
        if file not in mark["files"]:
            raise UserError(
                f"The report in {target} is not replaced, as {file} in it is not the report's: "
                "move it elsewhere, or name another folder with --to."
            )


def write_report(report: Report, target: Path, write_page: Callable[[Path], None] | None) -> None:
    """Write a report's folder, in the place of the one that is there.

    All is written beside it first: a full disk or a kill leaves the old report whole. (Between two
    renames, a moment, a kill leaves it in a hidden folder beside its place.)

    Args:
        report: to write.
        target: folder, which `check_target` allows.
        write_page: adds report.html and figures to a folder; None leaves them out.

    Raises:
        UserError: the files cannot be written, or `check_target` does not allow the folder any
            more.
    """
    try:
        with _replacing(target) as folder:
            _write_tables(report, folder)
            if write_page is not None:
                write_page(folder)
            contents = {
                "made_by": _MADE_BY,
                "name": report.name,
                "title": report.title,
                "command": report.command,
                "findings": [finding._asdict() for finding in report.findings],
                "notes": report.notes,
                "environment": report.environment,
                "files": sorted([*_files(folder), MARK]),
            }
            _write(folder / MARK, json.dumps(contents, indent=1) + "\n")
            _sync(folder)
            # Drawing takes minutes, in which something may have been put there.
            check_target(target, report.name)
    except OSError as error:
        kept = "; the report that is there is as it was" if target.exists() else ""
        raise UserError(
            f"The report in {target} cannot be written ({error.strerror or error}){kept}: make "
            "room, or name another folder with --to."
        ) from error


def _write_tables(report: Report, folder: Path) -> None:
    for name, frames in (
        ("table.csv", [part.cells for part in report.parts]),
        ("values.csv", [part.values for part in report.parts]),
    ):
        named = [
            frame.assign(part=part.name, command=part.command)
            for part, frame in zip(report.parts, frames, strict=True)
        ]
        together = pd.concat([frame.dropna(axis="columns", how="all") for frame in named])
        columns = ["part", "command", *_columns(frames)]
        cells = together.reindex(columns=columns).map(harmless_cell).rename(columns=harmless_cell)
        text = cells.to_csv(index=False, float_format="%.4f")
        _write(folder / name, text)
    _write(folder / "table.tex", latex(report))
    _write(folder / "report.md", markdown(report))


def _columns(frames: list[pd.DataFrame]) -> list[str]:
    """Columns of all frames: those of the axes where the first frame that has them does."""
    columns: list[str] = []
    for frame in frames:
        for number, name in enumerate(frame.columns):
            if name not in columns:
                before = frame.columns[number - 1] if number else None
                columns.insert(columns.index(before) + 1 if before in columns else 0, name)
    return columns


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A new folder beside the target that takes its place if all goes well, else is gone."""
    # A link stays what it is; its end is replaced.
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        new, old = aside / "new", aside / "old"
        new.mkdir()
        yield new
        if target.exists():
            target.rename(old)
            try:
                new.rename(target)
            except OSError:
                old.rename(target)
                raise
        else:
            new.rename(target)
    finally:
        # A left-over is no reason to call a written report a failure, or to hide what failed.
        shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Write through to the disk, where a full one may only then be noticed."""
    for name in _files(folder):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _marked(path: Path) -> dict[str, Any] | None:
    """The mark of a report, with its "name" and its "files"; None if it is none."""
    try:
        mark = json.loads(path.read_bytes())
        mark = {"name": mark["name"], "files": set(mark["files"]), "made_by": mark["made_by"]}
        return mark if mark["made_by"] == _MADE_BY else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )
