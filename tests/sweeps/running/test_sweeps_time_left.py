"""The time that a sweep still takes, against a slow reference and by hand."""

from __future__ import annotations

import json
import os
import random
import statistics
import time

import pytest

from core_tuning.sweeps.definition import Run
from core_tuning.sweeps.locks import take
from core_tuning.sweeps.status import main
from core_tuning.sweeps.time_left import expected_seconds, makespan
from core_tuning.sweeps.watching import Watch

STEPS = {
    "finetune": (("finetune", "--seeds", "0"),),
    "robust": (("robust", "train", "--norm", "linf"), ("robust", "evaluate", "{folder}")),
    "clean": (("finetune", "--lr", "1"), ("robust", "evaluate", "{folder}")),
}


def make_run(id, forwards, part="main", command="finetune"):
    return Run(id, f"run {id}", {"part": part}, 0, STEPS[command], "done", forwards)


def slow_estimate(run, finished, seconds):
    """Looks at all finished runs for each run."""

    def kind(other):
        return other.cell["part"], [step[0] for step in other.steps]

    timed = [other for other in finished if other.id in seconds]
    like = [other for other in timed if kind(other) == kind(run)] or timed
    counted = [other for other in like if other.forwards]
    if not (run.forwards and counted):
        return statistics.fmean(seconds[other.id] for other in like)
    # A mean of the seconds a forward pass, in which a long run counts as much more as it is longer.
    return run.forwards * statistics.fmean(
        [seconds[other.id] / other.forwards for other in counted],
        weights=[other.forwards for other in counted],
    )


def slow_makespan(seconds, at_once):
    """Steps through time, and starts the next job whenever a worker is free."""
    waiting, working, now = list(seconds), [], 0
    while waiting or working:
        working = [end for end in working if end > now]
        while waiting and len(working) < at_once:
            working.append(now + waiting.pop(0))
            working = [end for end in working if end > now]
        now += bool(working)
    return now


@pytest.mark.parametrize("seed", range(20))
def test_estimates_are_those_of_a_slow_reference(seed):
    dice = random.Random(seed)
    runs = [
        make_run(
            str(index),
            dice.choice([None, dice.uniform(1, 1e9), dice.uniform(1, 1e3)]),
            dice.choice(["main", "grid"]),
            dice.choice(list(STEPS)),
        )
        for index in range(dice.randint(2, 40))
    ]
    cut = dice.randint(1, len(runs) - 1)
    finished, left = runs[:cut], runs[cut:]
    # Of some, the seconds were not noted.
    seconds = {run.id: dice.uniform(1, 1e5) for run in finished if dice.random() < 0.8}
    seconds.setdefault(finished[0].id, 5.0)
    found = expected_seconds(left, finished, seconds)
    assert found == pytest.approx({run.id: slow_estimate(run, finished, seconds) for run in left})


@pytest.mark.parametrize("seed", range(20))
def test_the_makespan_is_that_of_a_slow_reference(seed):
    dice = random.Random(seed)
    seconds = [dice.randint(0, 30) for _ in range(dice.randint(0, 25))]
    at_once = dice.randint(1, 6)
    assert makespan(seconds, at_once) == slow_makespan(seconds, at_once)


def write_seconds(folder, id, seconds, age=0.0):
    folder.progress_path(id).write_text(json.dumps({"seconds": seconds}))
    then = time.time() - age
    os.utime(folder.progress_path(id), (then, then))


def finish(folder, id, seconds):
    folder.run_path(id).mkdir(parents=True)
    (folder.run_path(id) / "done").write_text("done")
    write_seconds(folder, id, seconds)


def left(capsys, folder):
    assert main(["fake", "--output", str(folder.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    return next(line for line in lines if "time left" in line)


def test_a_long_run_counts_for_more(make, capsys):
    """Four hours for what is four times the work, of which the mean knows nothing."""
    folder = make(make_run("a", 1e6), make_run("b", 4e6))
    finish(folder, "a", 3600)
    assert "about 4 h 0 min, 1 at the same time, 4 h 0 min a run" in left(capsys, folder)


def test_parts_and_commands_have_their_own_pace(make, capsys):
    folder = make(
        make_run("a", 1e6), make_run("b", 1e6, command="robust"), make_run("c", 1e6, part="grid"),
        make_run("d", 2e6, command="robust"),
    )  # fmt: skip
    for id, seconds in (("a", 60), ("b", 600), ("c", 6000)):
        finish(folder, id, seconds)
    assert "about 20 min 0 s" in left(capsys, folder)


def test_half_finished_runs_count_for_what_is_left_of_them(make, capsys):
    folder = make(*(make_run(id, 1e6, command="robust") for id in "abcd"))
    finish(folder, "a", 3600)
    # Its training is done and it was stopped in the evaluation.
    write_seconds(folder, "b", 2400, age=9999)
    assert "about 2 h 20 min" in left(capsys, folder)
    # Half an hour of the present attempt and ten minutes before it.
    write_seconds(folder, "c", 600, age=1800)
    lock = take(folder.lock_path("c"))
    text = left(capsys, folder)
    os.close(lock)
    assert "about 1 h 40 min" in text or "about 1 h 39 min" in text


def test_a_run_that_takes_longer_than_expected_is_about_to_end(make, capsys):
    folder = make(make_run("a", 1e6), make_run("b", 1e6))
    finish(folder, "a", 60)
    write_seconds(folder, "b", 600)
    assert "about 0 s, 1 at the same time, 1 min 0 s a run" in left(capsys, folder)


def test_a_sweep_that_runs_weighs_what_is_left_too(make, capsys, monkeypatch):
    """By the mean, an hour a run, it would be half of what it is."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    folder = make(make_run("a", 1e6), make_run("b", 1e6), make_run("c", 2e6), make_run("d", 2e6))
    watch = Watch(folder, "abcd")
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    for id in "ab":
        finish(folder, id, 3600)
        watch.look()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "[1/4] done run a (a): 1 h 0 min; 5 h 0 min left"
    assert lines[1] == "[2/4] done run b (b): 1 h 0 min; 2 h 0 min left"


def test_runs_without_noted_seconds_are_counted(make, capsys, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    folder = make(make_run("a", 1e6), make_run("b", 1e6), make_run("c", 9e6))
    watch = Watch(folder, "abc")
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    watch.give_up("a", "stopped")
    finish(folder, "b", 0)
    watch.look()
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition("; ")[2] for line in lines] == ["2 min 0 s left", "30 s left"]
