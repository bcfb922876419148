"""`core-tuning sweep status`: counts, the time and the money left, and why runs failed."""

from __future__ import annotations

import json
import os

import pytest

from core_tuning.cli import main
from core_tuning.sweeps.folder import open_sweep, start_sweep
from core_tuning.sweeps.launch import Place
from core_tuning.sweeps.locks import take
from core_tuning.sweeps.progress import duration
from core_tuning.sweeps.run import make_runs
from core_tuning.sweeps.status import MOST_FAILURES


def status(capsys, folder, *options):
    assert main(["sweep", "status", "fake", "--output", str(folder.path), *options]) == 0
    return capsys.readouterr().out


def finish(folder, id, seconds):
    folder.run_path(id).mkdir(parents=True)
    (folder.run_path(id) / "done").write_text("done")
    folder.progress_path(id).write_text(json.dumps({"seconds": seconds}))


def test_counts_time_and_money(make, fakes, capsys):
    folder = make(*(fakes.run(id) for id in "abcdefg"))
    assert "unknown until a run has finished" in status(capsys, folder)
    finish(folder, "a", 1800)
    finish(folder, "b", 5400)
    locks = [take(folder.lock_path(id)) for id in "cd"]
    folder.failure_path("e").write_text(json.dumps({"last_line": "boom"}))
    text = status(capsys, folder, "--price", "2.5")
    for lock in locks:
        os.close(lock)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["Fake:", "7", "runs", "in", str(folder.path)]
    assert lines[1:5] == [["done", "2"], ["running", "2"], ["failed", "1"], ["remaining", "2"]]
    # Four runs of an hour, two at a time.
    assert "time left  about 2 h 0 min, 2 at the same time, 1 h 0 min a run" in text
    assert "GPU hours  4 left, $10.00 at $2.5 an hour" in text
    assert "failed: fake e (e): boom" in text
    assert "running: fake c (c)" in text


def test_on_a_cpu_it_speaks_of_no_gpu(tmp_path, fakes, capsys):
    definition = "title = 'fake'\nmachine = { unit = 'CPU core', tflops = 0.1 }\n"
    sweep = fakes.sweep(fakes.run("a"), fakes.run("b"), definition=definition)
    folder = start_sweep(tmp_path / "sweep", sweep)
    finish(folder, "a", 1800)
    text = status(capsys, folder)
    assert "run hours  0.5 left" in text and "GPU" not in text


def test_nothing_left_needs_no_time(make, fakes, capsys):
    folder = make(fakes.run("a"))
    finish(folder, "a", 60)
    text = status(capsys, folder)
    assert "left " not in text
    # --watch ends by itself.
    assert status(capsys, folder, "--watch") == text


def test_watch_looks_until_nothing_is_left(make, fakes, capsys, monkeypatch):
    folder = make(fakes.run("a"))
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        finish(folder, "a", 60)

    monkeypatch.setattr("time.sleep", pause)
    text = status(capsys, folder, "--watch", "--every", "0.5")
    assert pauses == [0.5]
    assert text.count("Fake: 1 runs") == 2


def test_many_failures_are_counted(make, fakes, capsys):
    folder = make(*(fakes.run(f"r{index}") for index in range(MOST_FAILURES + 3)))
    for id in folder.runs:
        folder.failure_path(id).write_text(json.dumps({"last_line": "boom"}))
    text = status(capsys, folder)
    assert text.count("boom") == MOST_FAILURES
    assert "and 3 more failed" in text


def test_after_real_runs(make, fakes, capsys):
    folder = make(fakes.run("a"), fakes.run("b", mode="fail"))
    assert make_runs(open_sweep(folder.path), ["a", "b"], "local", Place(workers=1)) == 1
    capsys.readouterr()
    text = status(capsys, folder)
    assert "done            1" in text
    assert "boom: no such GPU" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--price", "-1"), "--price is -1.0"),
        (("--price", "nan"), "--price is nan"),
        (("--every", "0"), "--every is 0.0"),
        (("--output", "nowhere"), "nowhere is not a sweep's folder: it has no sweep.json"),
    ],
)
def test_bad_input(refused, options, message):
    assert message in refused("sweep", "status", "fake", *options)


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 59.4, 60, 3599, 3600, 86400 * 2)] == [
        "0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "2 d 0 h",
    ]  # fmt: skip
