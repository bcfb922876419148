"""One run: done once, resumed where it was, failed with the reason, never twice at a time."""

from __future__ import annotations

import json
import os
import sys

import pytest

from core_tuning.errors import UserError
from core_tuning.sweeps.folder import start_sweep
from core_tuning.sweeps.job import DONE, FAILED, last_line, main, run_job
from core_tuning.sweeps.launch import HELD
from core_tuning.sweeps.locks import take


def failure(folder, id):
    return json.loads(folder.failure_path(id).read_text())


def test_a_finished_run_is_not_repeated(make, fakes):
    folder = make(fakes.run("a"))
    assert [run_job(folder.path, "a") for _ in range(2)] == [DONE, DONE]
    assert len(fakes.starts(folder, "a")) == 1
    progress = folder.read_progress("a")
    assert (progress["attempts"], progress["stages"]) == (1, 1)
    assert 0 < progress["seconds"] < 30


def test_a_failed_run_keeps_its_last_line_and_waits_for_a_retry(make, fakes):
    folder = make(fakes.run("a", mode="fail"))
    assert [run_job(folder.path, "a") for _ in range(2)] == [FAILED, FAILED]
    assert len(fakes.starts(folder, "a")) == 1
    record = failure(folder, "a")
    assert (record["exit"], record["last_line"], record["attempts"]) == (1, "boom: no such GPU", 1)
    folder.failure_path("a").unlink()
    (folder.path / "runs" / "mended").write_text("")
    assert run_job(folder.path, "a") == DONE
    assert folder.read_progress("a")["attempts"] == 2


@pytest.mark.parametrize(("command", "lines"), [("domainbed train", 1), ("dg", 2)])
def test_what_cannot_resume_begins_anew(tmp_path, fakes, command, lines):
    """DomainBed appends to the results of a stopped run; the others go on from theirs."""
    script = (
        "import pathlib, sys; given = dict(zip(sys.argv, sys.argv[1:])); "
        "folder = pathlib.Path(given.get('--output') or given['--output_dir']); "
        "folder.mkdir(exist_ok=True); "
        "file = (folder / 'results.jsonl').open('a'); file.write('line\\n'); file.close(); "
        "(folder / 'done').touch()"
    )
    run = fakes.run("a", command=command)
    folder = start_sweep(tmp_path / "s", fakes.sweep(run), [sys.executable, "-c", script])
    folder.run_path("a").mkdir(parents=True)
    (folder.run_path("a") / "results.jsonl").write_text("stopped\n")
    assert run_job(folder.path, "a") == DONE
    assert (folder.run_path("a") / "results.jsonl").read_text().count("\n") == lines


def test_a_signal_is_named(make, fakes):
    folder = make(fakes.run("a", mode="die"))
    assert run_job(folder.path, "a") == FAILED
    assert failure(folder, "a")["exit"] == -11
    assert failure(folder, "a")["last_line"].startswith("killed by SIGSEGV; last line: ")


def test_a_run_that_leaves_no_result_has_failed(make, fakes):
    folder = make(fakes.run("a", mode="forget"))
    assert run_job(folder.path, "a") == FAILED
    assert "left no done; last line: counted" in failure(folder, "a")["last_line"]


def test_a_command_that_cannot_start_has_failed(tmp_path, fakes):
    folder = start_sweep(tmp_path / "s", fakes.sweep(fakes.run("a")), ["/no/such/python"])
    assert run_job(folder.path, "a") == FAILED
    assert "/no/such/python cannot be started" in failure(folder, "a")["last_line"]


def test_a_held_run_is_left_alone(make, fakes):
    folder = make(fakes.run("a"))
    lock = take(folder.lock_path("a"))
    assert main([str(folder.path), "a"]) == HELD
    os.close(lock)
    assert fakes.starts(folder, "a") == []


def test_stages_run_in_order_and_finished_ones_only_once(make, fakes):
    # The second fails at first; the third finishes the run.
    stages = fakes.stage(mode="forget"), fakes.stage(mode="fail")
    folder = make(fakes.run("a", stages=stages))
    assert run_job(folder.path, "a") == FAILED
    assert len(fakes.starts(folder, "a")) == 2
    folder.failure_path("a").unlink()
    (folder.path / "runs" / "mended").write_text("")
    assert run_job(folder.path, "a") == DONE
    assert len(fakes.starts(folder, "a")) == 3


def test_a_removed_run_begins_with_its_first_step(make, fakes):
    stages = fakes.stage(mode="forget"), fakes.stage()
    folder = make(fakes.run("a", stages=stages))
    assert run_job(folder.path, "a") == DONE
    for file in folder.run_path("a").iterdir():
        file.unlink()
    folder.run_path("a").rmdir()
    assert run_job(folder.path, "a") == DONE
    assert len(fakes.starts(folder, "a")) == 2


def test_core_tuning_is_what_runs_by_default(tmp_path, fakes):
    run = fakes.run("a", mode="nonsense")
    folder = start_sweep(tmp_path / "s", fakes.sweep(run))
    assert run_job(folder.path, "a") == FAILED
    assert failure(folder, "a")["exit"] == 2
    assert "'nonsense'" in failure(folder, "a")["last_line"]
    command = folder.log_path("a").read_text().splitlines()[0]
    assert command.startswith(f"$ {sys.executable} -m core_tuning dg --steps 1 ")
    assert f" --output {folder.run_path('a')} " in command


def test_the_last_line_is_of_the_last_attempt(tmp_path):
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("$ first\nold error\n$ second\n 10%\r 20%\r\n\n")
    assert last_line(log) == ""
    log.write_text("$ first\nold error\n$ second\n10%\r20%\rKeyError: 'x'\n\n")
    assert last_line(log) == "KeyError: 'x'"


def test_an_unknown_run_is_refused(make, fakes, capsys):
    folder = make(fakes.run("a"))
    with pytest.raises(UserError, match="'b' is not a run of"):
        run_job(folder.path, "b")
    assert main([str(folder.path), "b"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
