"""The time that a sweep still takes, against a slow reference and by hand."""

from __future__ import annotations

import json
import os
import random
import statistics
import time

import pytest

from core_tuning.cli import main
from core_tuning.sweeps.locks import take
from core_tuning.sweeps.plan import Run, Stage
from core_tuning.sweeps.progress import Tally, expected_seconds, makespan
from core_tuning.sweeps.run import _share_ended

EVALUATE = Stage("robust evaluate", {})
STAGES = {
    "dg": (Stage("dg", {}),),
    "robust": (Stage("robust train", {"norm": "linf"}), EVALUATE),
    "clean": (Stage("finetune", {"lr": 1}), EVALUATE),
}


def make_run(id, forwards, part="main", command="dg"):
    return Run(id, f"run {id}", {"part": part}, 0, STAGES[command], forwards)


def slow_estimate(run, finished, seconds):
    """Looks at all finished runs for each run."""

    def kind(other):
        return other.cell["part"], [stage.command for stage in other.stages]

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
            dice.choice(list(STAGES)),
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
    done = folder.run_path(id) / folder.runs[id].done
    done.parent.mkdir(exist_ok=True)
    done.write_text("done")
    write_seconds(folder, id, seconds)


def left(capsys, folder):
    assert main(["sweep", "status", "fake", "--output", str(folder.path)]) == 0
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


def test_a_sweep_that_runs_weighs_what_is_left_too(capsys, monkeypatch):
    """By the number of jobs, a fourth of them, it would be three hours."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = Tally(4)
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    runs = [make_run("a", 1e6), make_run("b", 1e6), make_run("c", 2e6), make_run("d", 2e6)]
    tally.say("a", _share_ended(runs, ["a"], {"a": 3600.0}))
    tally.say("b", _share_ended(runs, ["a", "b"], {"a": 3600.0, "b": 3600.0}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[1/4] a; 5 h 0 min left", "[2/4] b; 2 h 0 min left"]


def test_runs_without_noted_seconds_are_counted(capsys, monkeypatch):
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = Tally(3)
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    runs = [make_run("a", 1e6), make_run("b", 1e6), make_run("c", 9e6)]
    tally.say("a", _share_ended(runs, ["a"], {}))
    tally.say("b", _share_ended(runs, ["a", "b"], {"b": 0.0}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["[1/3] a; 2 min 0 s left", "[2/3] b; 30 s left"]
