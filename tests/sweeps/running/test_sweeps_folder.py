"""A sweep's folder keeps its runs apart from other sweeps', and says how each stands."""

from __future__ import annotations

import json
import os

import pytest

from core_tuning.errors import UserError
from core_tuning.sweeps.folder import open_sweep, start_sweep, state_of
from core_tuning.sweeps.locks import is_held, take


def finish(folder, id, seconds=2.0):
    folder.run_path(id).mkdir(parents=True)
    (folder.run_path(id) / folder.runs[id].done).write_text("done")
    folder.progress_path(id).write_text(
        json.dumps({"attempts": 1, "seconds": seconds, "stages": 1})
    )


def test_the_runs_come_back_as_they_were(make, fakes):
    runs = [fakes.run("a", seed=3), fakes.run("b")]
    folder = make(*runs)
    assert list(open_sweep(folder.path).runs.values()) == runs


def test_the_state_tells_done_running_failed_and_remaining(make, fakes):
    folder = make(*(fakes.run(id) for id in "abcde"))
    finish(folder, "a", 7.5)
    lock = take(folder.lock_path("b"))
    os.close(take(folder.lock_path("d")))
    folder.failure_path("c").write_text(json.dumps({"last_line": "boom"}))
    state = state_of(open_sweep(folder.path))
    os.close(lock)
    assert state == (["a"], ["b"], {"c": "boom"}, ["d", "e"], {"a": 7.5})


def test_a_look_at_a_lock_leaves_it_to_others(make, fakes):
    path = make(fakes.run("a")).lock_path("a")
    os.close(take(path))
    assert not is_held(path)
    lock = take(path, patience=0)
    assert lock is not None
    assert is_held(path)
    assert take(path, patience=0) is None
    os.close(lock)
    assert not is_held(path)


def test_more_seeds_are_added_to_what_is_there(make, fakes):
    make(fakes.run("a", seed=0))
    folder = make(fakes.run("b", seed=1), fakes.run("a", seed=0))
    assert list(folder.runs) == ["a", "b"]


def refusal(path, sweep):
    before = {file: file.read_bytes() for file in path.rglob("*.json")} if path.is_dir() else {}
    with pytest.raises(UserError) as error:
        start_sweep(path, sweep)
    assert all(file.read_bytes() == contents for file, contents in before.items())
    return str(error.value)


def test_another_sweep_is_refused_with_what_differs(make, fakes):
    path = make(fakes.run("a")).path
    assert "'fake' and not 'other'" in refusal(path, fakes.sweep(fakes.run("a"), name="other"))
    other = fakes.sweep(fakes.run("a"), definition="title = 'mine'\n")
    assert "\"title = 'fake'\" and not \"title = 'mine'\"" in refusal(path, other)
    longer = fakes.sweep(fakes.run("a"), definition="title = 'fake'\nseeds = [0]\n")
    assert "'' and not 'seeds = [0]'" in refusal(path, longer)


def test_other_settings_of_a_run_that_is_there_are_refused(make, fakes):
    path = make(fakes.run("a")).path
    other = fakes.run("z", until=5)._replace(cell={"row": "a"})
    text = refusal(path, fakes.sweep(other))
    assert "--steps 1 " in text and "--steps 5 " in text


def test_what_is_no_sweep_is_refused(tmp_path, fakes):
    sweep = fakes.sweep(fakes.run("a"))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("mine")
    assert "is a file, not a folder" in refusal(tmp_path / "file", sweep)
    assert "is a file, not a folder" in refusal(tmp_path / "file" / "inside", sweep)
    assert "is not empty and is not a sweep's" in refusal(tmp_path / "photos", sweep)
    with pytest.raises(UserError, match=r"not a sweep's folder: it has no sweep\.json"):
        open_sweep(tmp_path / "photos")
    (tmp_path / "photos" / "sweep.json").write_text('{"name": 3')
    with pytest.raises(UserError, match="is damaged"):
        open_sweep(tmp_path / "photos")


def test_a_kill_before_the_first_file_is_no_reason_to_refuse(tmp_path, fakes):
    (tmp_path / "sweep" / "locks").mkdir(parents=True)
    (tmp_path / "sweep" / ".sweep.json.tmp").write_text("{")
    assert list(start_sweep(tmp_path / "sweep", fakes.sweep(fakes.run("a"))).runs) == ["a"]
