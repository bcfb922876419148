"""`core-tuning sweep run` and `retry`: idempotent, with exit codes that scripts can trust."""

from __future__ import annotations

import os
import sys

import pytest

from core_tuning.cli import main
from core_tuning.sweeps import run as run_module
from core_tuning.sweeps.config import Run
from core_tuning.sweeps.folder import open_sweep, state_of
from core_tuning.sweeps.locks import take

DEFINITION = """\
title = "mine"
command = "finetune"
seeds = [0]
rows = [
    { name = "CE", options = { method = "ce" } },
    { name = "Core-tuning", options = { method = "core_tuning" } },
]
[options]
dataset = "folder"
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def sweep(monkeypatch, fakes, command, output):
    """Make `core-tuning sweep` know a sweep of fake runs; call it with a sub-command."""

    def load(name, *, seeds=None, small=False, settings=None, only=None):
        runs = [
            fakes.run(f"{id}{seed}", mode="fail" if id == "b" else "ok", seed=seed)
            for seed in seeds or [0]
            for id in (only or {"row": ["a", "b", "c"]})["row"]
        ]
        return fakes.sweep(*runs)

    start = run_module.start_sweep
    monkeypatch.setattr(run_module, "load_sweep", load)
    monkeypatch.setattr(run_module, "start_sweep", lambda path, sweep: start(path, sweep, command))

    def call(name, *options):
        return main(["sweep", name, "fake", "--output", str(output), *options])

    return call


def starts(output, fakes):
    folder = open_sweep(output)
    return {id: len(fakes.starts(folder, id)) for id in folder.runs}


def test_finished_runs_are_not_repeated_and_failed_ones_wait(sweep, output, fakes, capsys):
    for _ in range(2):
        assert sweep("run") == 1
        said = capsys.readouterr()
        assert "2 of 3 runs are finished, 1 failed, 0 are not finished" in said.out
        assert "failed: fake b0 (b0): boom: no such GPU" in said.err
        assert "core-tuning sweep retry" in said.err
        assert starts(output, fakes) == {"a0": 1, "b0": 1, "c0": 1}


def test_retry_makes_failed_runs_again(sweep, output, fakes, capsys):
    sweep("run", "--seeds", "0", "1")
    assert sweep("retry", "b0") == 1
    assert starts(output, fakes) == {"a0": 1, "b0": 2, "c0": 1, "a1": 1, "b1": 1, "c1": 1}
    (output / "runs" / "mended").write_text("")
    assert sweep("retry", "--workers", "2") == 0
    assert starts(output, fakes) == {"a0": 1, "b0": 3, "c0": 1, "a1": 1, "b1": 2, "c1": 1}
    capsys.readouterr()
    assert sweep("retry") == 0
    assert "no run has failed" in capsys.readouterr().out


def test_seeds_are_added_and_other_runs_left(sweep, output, fakes):
    assert sweep("run", "--only", "row=a") == 0
    assert sweep("run", "--only", "row=a", "--seeds", "1") == 0
    assert starts(output, fakes) == {"a0": 1, "a1": 1}
    # Only what is asked for now is made and counted.
    assert sweep("run", "--only", "row=b") == 1
    assert sweep("run", "--only", "row=a") == 0
    assert starts(output, fakes) == {"a0": 1, "a1": 1, "b0": 1}


def test_a_run_that_stays_unfinished_is_no_success(sweep, output, monkeypatch, capsys):
    monkeypatch.setattr(run_module, "launch", lambda *given: (each for each in ()))
    assert sweep("run") == 1
    assert "0 of 3 runs are finished, 0 failed, 3 are not finished" in capsys.readouterr().out


def test_bad_input(sweep, output, refused, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    assert "is a file, not a folder" in refused(
        "sweep", "run", "fake", "--output", tmp_path / "file"
    )
    for command in ("run", "retry"):
        assert "--workers is 0" in refused("sweep", command, "fake", "--workers", 0)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert "core-tuning[sweeps]" in refused("sweep", command, "fake", "--launcher", "ray")
        monkeypatch.undo()
    assert "not a sweep's folder" in refused("sweep", "retry", "fake", "--output", output)
    assert not output.exists()


def test_retry_refuses_what_has_not_failed(sweep, output, refused):
    sweep("run")
    text = refused("sweep", "retry", "fake", "--output", output, "b0", "a0")
    assert "'a0' is not a failed run" in text
    assert "expected of these: b0" in text
    assert list(state_of(open_sweep(output)).failed) == ["b0"]


def test_a_wrong_option_of_retry_forgets_no_failure(sweep, output, refused):
    sweep("run")
    for wrong in (["--slurm", "gpu"], ["--workers", "0"]):
        refused("sweep", "retry", "fake", "--output", output, *wrong)
    assert list(state_of(open_sweep(output)).failed) == ["b0"]


def test_a_cluster_takes_as_many_workers_as_it_has():
    options = Run.read("core-tuning sweep run", ["fake", "--launcher", "slurm", "--workers", "300"])
    assert options.place.workers == 300


def test_a_run_that_another_process_makes_is_not_finished(sweep, output):
    sweep("run", "--only", "row=c")
    folder = open_sweep(output)
    lock = take(folder.lock_path("c0"))
    (folder.run_path("c0") / "done").unlink()
    assert run_module.report(folder, ["c0"]) == 1
    os.close(lock)


def test_a_real_sweep(write_folder, tmp_path, output):
    data = write_folder(tmp_path / "data", {"train": 6, "val": 4, "test": 4})
    definition = tmp_path / "mine.toml"
    definition.write_text(DEFINITION)
    arguments = [
        "sweep", "run", str(definition), "--output", str(output), "--set", f"data_dir={data}",
        "pretrained=embedded", "transforms=small", "image_size=16", "batch_size=8", "workers=0",
        "epochs=1", "--only", "row=CE",
    ]  # fmt: skip
    assert main(arguments) == 0
    (run,) = (output / "runs").iterdir()
    assert (run / "result.json").exists()
    before = (run / "result.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (run / "result.json").stat().st_mtime_ns == before
    assert sys.executable in next((output / "logs").iterdir()).read_text()
