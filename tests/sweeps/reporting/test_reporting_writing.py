"""A report's folder is replaced as a whole, by a whole report, and nobody's files are lost."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning.sweeps.reporting import report as writing


def test_nothing_else_is_overwritten(sweep, tmp_path, report, contents, refused_report):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.md").write_text("mine")
    assert "as notes.md in it is not of an earlier report of 'table23'" in refused_report(
        sweep.path, "--to", mine
    )
    assert contents(mine) == {"notes.md": b"mine"}
    assert "is a file, not a folder" in refused_report(sweep.path, "--to", mine / "notes.md")
    assert "in it is not of an earlier report" in refused_report(sweep.path, "--to", sweep.path)
    # A file that a reader has put into a report is the reader's.
    assert report(sweep) == 0
    (sweep.path / "report" / "notes.md").write_text("mine")
    error = refused_report(sweep.path)
    assert "is not replaced, as notes.md in it is not of an earlier report" in error
    assert (sweep.path / "report" / "notes.md").read_text() == "mine"


def test_an_empty_folder_is_taken(sweep, tmp_path, report, contents, kit):
    (tmp_path / "empty").mkdir()
    assert report(sweep, "--to", str(tmp_path / "empty")) == 0
    assert sorted(contents(tmp_path / "empty")) == kit.FILES


def test_a_report_is_replaced_by_a_new_one(sweep, kit, report, contents):
    assert report(sweep) == 0
    before = contents(sweep.path / "report")
    run = next(run for run in sweep.runs.values() if run.seed == 2)
    kit.finish(sweep, run, kit.percent)
    assert report(sweep) == 0
    after = contents(sweep.path / "report")
    assert "7 of 9 runs" in after["report.md"].decode()
    assert before["table.csv"] != after["table.csv"]
    assert sorted(entry.name for entry in sweep.path.iterdir() if entry.name.startswith(".")) == []


def test_two_reports_of_the_same_runs_are_equal(sweep, tmp_path, report, contents):
    for name in ("a", "b"):
        assert report(sweep, "--to", str(tmp_path / name)) == 0
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert a["table.csv"] == b["table.csv"] and a["values.csv"] == b["values.csv"]


def limited(folder, largest):
    """Ask for a report where no file may become larger than so many bytes."""
    program = (
        "import resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))\n"
        "from core_tuning.cli import main\n"
        f"sys.exit(main(['sweep', 'report', 'table23', '--no-page', '--output', {str(folder)!r}]))"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_a_file_that_cannot_be_written_leaves_the_old_report(sweep, kit, report, contents):
    run = limited(sweep.path, 1000)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("core-tuning: error: The report in ")
    assert run.stderr.count("\n") == 1
    assert not (sweep.path / "report").exists()
    assert not any(path.name.startswith(".") for path in sweep.path.iterdir())
    assert report(sweep) == 0
    before = contents(sweep.path / "report")
    kit.finish(sweep, list(sweep.runs.values())[-1], kit.percent)
    run = limited(sweep.path, 1000)
    assert run.returncode == 2
    assert "cannot be written (File too large); the report that is there is as it was" in run.stderr
    assert contents(sweep.path / "report") == before
    assert not any(path.name.startswith(".") for path in sweep.path.iterdir())


@pytest.mark.parametrize("number", range(6))
def test_a_full_disk_at_any_file(sweep, monkeypatch, number, report, contents, refused_report):
    """Whichever file does not fit, or is only found not to be on the disk when synced."""
    assert report(sweep) == 0
    before = contents(sweep.path / "report")
    calls = []

    def full(path, *rest, real=writing._write):
        calls.append(path)
        if len(calls) == number + 1:
            path.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, *rest)

    def unsynced(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing, "_write", full)
    monkeypatch.setattr(writing, "_sync", unsynced)
    error = refused_report(sweep.path)
    assert "cannot be written (No space left on device)" in error
    assert contents(sweep.path / "report") == before
    assert not any(path.name.startswith(".") for path in sweep.path.iterdir())


def test_a_rename_that_fails_puts_the_old_report_back(
    sweep, monkeypatch, report, contents, refused_report
):
    assert report(sweep) == 0
    before = contents(sweep.path / "report")
    real = Path.rename

    def rename(path, target):
        if path.name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert "Input/output error" in refused_report(sweep.path)
    assert contents(sweep.path / "report") == before


def test_a_place_below_a_file(sweep, tmp_path, refused_report):
    (tmp_path / "file").write_text("mine")
    error = refused_report(sweep.path, "--to", tmp_path / "file" / "report")
    assert "cannot be written" in error and "--to" in error


def test_a_link_stays_a_link(sweep, tmp_path, report, contents, kit):
    assert report(sweep, "--to", str(tmp_path / "real")) == 0
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert report(sweep, "--to", str(tmp_path / "link")) == 0
    assert (tmp_path / "link").is_symlink()
    assert sorted(contents(tmp_path / "real")) == kit.FILES


def test_a_report_of_another_sweep_is_kept(sweep, tmp_path, filled, report, contents, refused):
    assert report(sweep, "--to", tmp_path / "out") == 0
    before = contents(tmp_path / "out")
    other = filled(tmp_path / "other", "table24")
    error = refused("sweep", "report", "table24", "--output", other.path, "--no-page", "--to",
                    tmp_path / "out")  # fmt: skip
    assert "in it is not of an earlier report of 'table24'" in error
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_is_put_there_meanwhile_is_kept(
    sweep, monkeypatch, there, report, refused_report
):
    if there:
        assert report(sweep) == 0
    target = sweep.path / "report"

    def put(folder, real=writing._sync):
        target.mkdir(exist_ok=True)
        (target / "mine.txt").write_text("mine")
        real(folder)

    monkeypatch.setattr(writing, "_sync", put)
    assert "mine.txt in it is not of an earlier report" in refused_report(sweep.path)
    assert (target / "mine.txt").read_text() == "mine"
    assert not any(path.name.startswith(".") for path in sweep.path.iterdir())
