"""kill -9 of the sweep, of a worker or of a run costs what came after the last checkpoint."""

from __future__ import annotations

import json
import os
import random
import signal

import pytest

from core_tuning.sweeps.folder import open_sweep, state_of
from core_tuning.sweeps.job import run_job

UNTIL = 20
PAUSE = 0.05


def holder(folder, id):
    return json.loads(folder.lock_path(id).read_text())["pid"]


def counting(folder, fakes, id, least=3):
    fakes.wait_until(lambda: fakes.count_of(folder, id) >= least, f"run {id} to count")
    return fakes.starts(folder, id)[-1][0]


@pytest.fixture
def folder(make, fakes):
    return make(fakes.run("a", until=UNTIL, pause=PAUSE))


def check_resumed(folder, fakes, least=3):
    """The run was finished by a second start, which went on where the first was."""
    assert (folder.run_path("a") / "done").exists()
    (_, first), (_, second) = fakes.starts(folder, "a")
    assert first == 0
    assert second >= least
    assert fakes.count_of(folder, "a") == UNTIL


def test_killing_the_sweep_ends_its_run_and_the_next_goes_on_at_once(folder, drive, fakes):
    sweep = drive(folder)
    run = counting(folder, fakes, "a")
    sweep.kill()
    sweep.wait()
    # Started at once, while the old run may still be ending.
    assert drive(folder).wait(20) == 0
    assert not fakes.alive(run)
    check_resumed(folder, fakes)


def test_killing_a_worker_ends_its_run_which_the_sweep_goes_on_with(folder, drive, fakes):
    sweep = drive(folder)
    run = counting(folder, fakes, "a")
    os.kill(holder(folder, "a"), signal.SIGKILL)
    fakes.wait_until(lambda: not fakes.alive(run), "the run to end")
    assert sweep.wait(20) == 0
    check_resumed(folder, fakes)


def test_killing_a_run_counts_as_failed_and_a_retry_goes_on(folder, drive, fakes):
    sweep = drive(folder)
    os.kill(counting(folder, fakes, "a"), signal.SIGKILL)
    assert sweep.wait(20) == 1
    assert (
        "killed by SIGKILL, as the kernel does when memory"
        in state_of(open_sweep(folder.path)).failed["a"]
    )
    assert "killed by SIGKILL" in sweep.stderr.read()
    folder.failure_path("a").unlink()
    assert drive(folder).wait(20) == 0
    check_resumed(folder, fakes)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_has_not_failed_and_goes_on(folder, drive, fakes, kind):
    """As a preempted job's is: it has saved, and a later attempt goes on from there."""
    sweep = drive(folder)
    os.kill(counting(folder, fakes, "a"), kind)
    assert sweep.wait(20) in (0, 1)
    assert not folder.failure_path("a").exists()
    assert "a" not in state_of(open_sweep(folder.path)).failed
    if not folder.is_done("a"):
        assert state_of(open_sweep(folder.path)).remaining == ["a"]
        assert drive(folder).wait(20) == 0
    check_resumed(folder, fakes)


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 10))]
)
def test_kills_at_random_moments(make, drive, fakes, seed):
    """Of the sweep, counted in the steps of its runs: each run is finished, from where it was."""
    moments = random.Random(seed)
    ids = ["a", "b", "c"]
    folder = make(*(fakes.run(id, until=10, pause=0.02) for id in ids))

    def steps():
        return sum(fakes.count_of(folder, id) for id in ids)

    for _ in range(2):
        enough = steps() + moments.randint(1, 8)
        sweep = drive(folder)
        fakes.wait_until(lambda enough=enough: steps() >= enough, f"{enough} steps")
        sweep.kill()
        sweep.wait()
        assert state_of(open_sweep(folder.path)).failed == {}
    assert drive(folder).wait(60) == 0
    assert state_of(open_sweep(folder.path)).done == ids
    assert steps() == 10 * len(ids)


@pytest.mark.parametrize(("kind", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_the_sweep_leaves_no_orphan_and_no_failure(folder, drive, fakes, kind, code):
    sweep = drive(folder)
    run = counting(folder, fakes, "a")
    worker = holder(folder, "a")
    sweep.send_signal(kind)
    assert sweep.wait(20) == code
    # Ended before the sweep itself.
    assert not fakes.alive(run)
    assert not fakes.alive(worker)
    assert state_of(open_sweep(folder.path)).remaining == ["a"]
    assert "the same command goes on with it" in sweep.stderr.read()
    assert folder.read_progress("a")["seconds"] > 0
    assert drive(folder).wait(20) == 0
    check_resumed(folder, fakes)


def test_a_run_whose_worker_is_gone_stays_locked_until_it_ends(make, drive, fakes, monkeypatch):
    """Where nothing ends the run with its worker, it is still not made twice at a time."""
    folder = make(fakes.run("a", until=UNTIL, pause=PAUSE))
    monkeypatch.setattr("core_tuning.sweeps.job.die_with_parent", lambda kind: lambda: None)
    worker = os.fork()
    if worker == 0:
        os._exit(run_job(folder.path, "a"))
    run = counting(folder, fakes, "a")
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    assert fakes.alive(run)
    assert folder.is_running("a")
    # The sweep waits for it, and finds it finished.
    assert drive(folder).wait(20) == 0
    assert len(fakes.starts(folder, "a")) == 1


def test_two_sweeps_at_once_make_every_run_once(make, drive, fakes):
    ids = [f"r{index}" for index in range(8)]
    folder = make(*(fakes.run(id, until=4, pause=0.05) for id in ids))
    sweeps = [drive(folder), drive(folder), drive(folder, workers=1)]
    assert [sweep.wait(60) for sweep in sweeps] == [0, 0, 0]
    assert [len(fakes.starts(folder, id)) for id in ids] == [1] * len(ids)
