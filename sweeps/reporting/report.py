"""`core-tuning sweep report NAME`: finished runs beside the paper's numbers."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from core_tuning.errors import UserError
from core_tuning.files import harmless_cell
from core_tuning.options import plain_values, to_argv
from core_tuning.report.page import html, markdown
from core_tuning.report.tables import latex

from ..claims import Claim
from ..config import Report as Options
from ..config import folder_of
from ..folder import SweepFolder, open_sweep
from ..reading import check_sweep, is_toml, read_definition, sweep_names, what_it_runs

if TYPE_CHECKING:
    from .results import Report

# Says that a folder is a report, and which of its files are.
MARK = "report.json"
_MADE_BY = "core-tuning sweep report"


def main(options: Options) -> None:
    """Run the command."""
    given = to_argv(Options, plain_values(options))
    command = shlex.join(["core-tuning", "sweep", "report", *given])
    if importlib.util.find_spec("pandas") is None:
        raise UserError(
            "The report needs pandas, which is not installed: pip install 'core-tuning[sweeps]'."
        )
    if options.domainbed is not None:
        place = options.domainbed
        target = options.to or place / "report"
        check_target(target, place.resolve().name)
        from .domainbed import read_domainbed

        report = read_domainbed(place, command, _warn)
    else:
        assert options.name is not None
        place = folder_of(options.name, options.output)
        folder, claims, notes = _open(options.name, place)
        target = options.to or place / "report"
        check_target(target, folder.name)
        from .collect import read_report

        report = read_report(folder, command, claims, _warn)
        report = report._replace(notes=(*report.notes, *notes))
    write_report(report, target, place / "runs" if options.page else None)
    _say(report, target / ("report.html" if options.page else "report.md"))


def _warn(sentence: str) -> None:
    print(f"core-tuning: warning: {sentence}", file=sys.stderr)


def _open(name: str, place: Path) -> tuple[SweepFolder, list[Claim] | None, list[str]]:
    """The sweep's folder, the claims that its definition makes now, and what else has changed.

    No claims where the definition is not to be had or runs other things than the folder does,
    which has its own.
    """
    if not (place / "sweep.json").exists() and not is_toml(name):
        # A mistyped name says more than a folder that is not there.
        check_sweep(name)
    folder = open_sweep(place)
    if folder.name != Path(name).stem:
        if not is_toml(name):
            check_sweep(name)
        raise UserError(
            f"The folder {place} is of another sweep, '{folder.name}' and not "
            f"'{Path(name).stem}': name another with --output, or ask for the report of "
            f"{folder.name}."
        )
    if not (Path(name).is_file() if is_toml(name) else name in sweep_names()):
        return folder, None, []
    definition = read_definition(name)
    if what_it_runs(definition.text) == what_it_runs(folder.definition):
        return folder, definition.claims, []
    changed = (
        f"The definition of {folder.name} has changed since these runs were begun; the report is "
        "by the one that the sweep's folder keeps."
    )
    return folder, None, [changed]


def _say(report: Report, shown: Path) -> None:
    from .findings import NOT_MEASURED

    # The first note says how many runs are in it.
    print(f"{report.title}: {report.notes[0]} See {shown}.")
    measured = [finding for finding in report.findings if finding.verdict != NOT_MEASURED]
    for finding in measured:
        print(f"  {finding.verdict}: {finding.says} {finding.evidence}")
    count = len(report.findings)
    if len(measured) < count:
        left = count - len(measured)
        print(f"  {NOT_MEASURED}: {left} of {count} findings; their runs are missing.")


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
    try:
        mark = json.loads((target / MARK).read_bytes())
        own = mark["files"] if (mark["made_by"], mark["name"]) == (_MADE_BY, name) else []
    except (OSError, ValueError, KeyError, TypeError):
        own = []
    for file in _files(target):
        if file not in own:
            raise UserError(
                f"{target} is not replaced, as {file} in it is not of an earlier report of "
                f"'{name}': move it elsewhere, or name another folder with --to."
            )


def write_report(report: Report, target: Path, runs: Path | None) -> None:
    """Write a report's folder, in the place of the one that is there.

    All is written beside it first: a full disk or a kill leaves the old report whole. (Between two
    renames, a moment, a kill leaves it in a hidden folder beside its place.)

    Args:
        report: to write.
        target: folder, which `check_target` allows.
        runs: the folder of the runs' folders; None writes neither report.html nor figures.

    Raises:
        UserError: the files cannot be written, or `check_target` does not allow the folder any
            more.
    """
    from .page import draw_figures, page_of
    from .views import tables_of

    try:
        with _replacing(target) as folder:
            figures = {} if runs is None else draw_figures(report, runs, folder / "figures")
            page = page_of(report, figures)
            if runs is not None:
                _write(folder / "report.html", html(page))
            _write(folder / "report.md", markdown(page, folder))
            tables = [table for part in report.parts for table in tables_of(part)]
            said = (report.title, f"made by: {report.command}")
            _write(folder / "table.tex", latex(tables, said))
            _write(folder / "table.csv", _csv(report, "cells"))
            _write(folder / "values.csv", _csv(report, "values"))
            contents = {
                "made_by": _MADE_BY,
                **{key: value for key, value in report._asdict().items() if key != "parts"},
                "findings": [finding._asdict() for finding in report.findings],
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


def _csv(report: Report, frame: str) -> str:
    """The cells or the values of all parts, with the axes of all of them."""
    import pandas as pd

    frames = [getattr(part, frame) for part in report.parts]
    axes = dict.fromkeys(axis for part in report.parts for axis in part.axes)
    own = [name for name in frames[0].columns if name not in axes]
    row = own.index("row") + 1
    columns = ["part", "command", *own[:row], *axes, *own[row:]]
    named = [
        frame.assign(part=part.name, command=part.command).dropna(axis="columns", how="all")
        for part, frame in zip(report.parts, frames, strict=True)
    ]
    together = pd.concat(named).reindex(columns=columns)
    cells = together.map(harmless_cell).rename(columns=harmless_cell)
    return str(cells.to_csv(index=False, float_format="%.4f"))


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
            if old.exists():
                old.rename(target)
            raise
    finally:
        # A left-over is no reason to call a written report a failure, or to hide what failed.
        shutil.rmtree(aside, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Write through to the disk, where a full one may only then be noticed."""
    for name in _files(folder):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def _files(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()
    )
