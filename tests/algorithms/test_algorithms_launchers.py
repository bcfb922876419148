"""Launchers that another subpackage offers, in sweeps of the real DomainBed."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning.algorithms.registration import add_launchers
from core_tuning.cli import main
from core_tuning.errors import UserError

SWEEP = (
    "domainbed", "sweep", "launch", "--datasets", "Debug28", "--algorithms", "CoreTuning",
    "--n_hparams", "1", "--n_trials", "1", "--single_test_envs", "--steps", "2", "--data_dir", ".",
    "--output_dir", "out", "--skip_confirmation", "--train-args", "--skip_model_save",
    "--workers", "0",
)  # fmt: skip
SMALL = ("--hparams", '{"batch_size": 8}')
PLACES = {
    "core_local": ("--jobs", "2"),
    "core_slurm": ("--slurm", "cluster=local"),
    "core_ray": ("--jobs", "2"),
}
NEEDS = {"core_slurm": "submitit", "core_ray": "ray"}


def registry():
    return importlib.import_module("domainbed.command_launchers").REGISTRY


@pytest.mark.parametrize("launcher", PLACES)
def test_a_sweep(domainbed, launcher, capfd):
    if launcher in NEEDS:
        pytest.importorskip(NEEDS[launcher])
    arguments = [*SWEEP, *SMALL, "--command_launcher", launcher, *PLACES[launcher]]
    assert main(arguments) == 0
    done = sorted(Path("out").glob("*/done"))
    assert len(done) == 3
    assert "[3/3] the job of out/" in capfd.readouterr().err
    # Again, it finds nothing to do.
    assert main(arguments) == 0
    assert "About to launch 0 jobs" in capfd.readouterr().out
    collect = [sys.executable, "-m", "domainbed.scripts.collect_results", "--input_dir"]
    stock = subprocess.run(
        [*collect, Path("out").resolve()], cwd=domainbed, capture_output=True, text=True, check=True
    )
    assert [line for line in stock.stdout.splitlines() if line.startswith("CoreTuning")]
    # DomainBed's launchers are as they were.
    assert {registry()[name].__module__ for name in ("dummy", "local", "multi_gpu")} == {
        "domainbed.command_launchers"
    }


def test_a_stock_sweep_with_the_hook(checkout, environment, run, tmp_path):
    """Its jobs start by `python`, which is that of the environment."""
    path = f"{environment}{os.pathsep}{os.environ['PATH']}"
    run(environment / "python", "-m", "core_tuning", "domainbed", "enable")
    stock = SWEEP[SWEEP.index("launch") : SWEEP.index("--train-args")]
    done = run(
        environment / "python", "-m", "domainbed.scripts.sweep", *stock, *SMALL,
        "--output_dir", tmp_path / "out", "--command_launcher", "core_local", cwd=checkout,
        PATH=path, CORE_TUNING_LAUNCHER="--jobs 2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert len(list((tmp_path / "out").glob("*/done"))) == 3
    assert "[3/3] the job of " in done.stdout


def test_a_job_that_fails_is_listed(domainbed, capfd, tmp_path):
    Path("broken.pt").write_text("no checkpoint")
    given = ("--hparams", '{"batch_size": 8, "checkpoint": "broken.pt"}')
    assert main([*SWEEP, *given, "--command_launcher", "core_local", "--jobs", "2"]) == 1
    said = capfd.readouterr().err
    assert said.count("ended with exit code 2") == 3
    assert "3 of 3 jobs left no 'done'" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("core_loca",), "no launcher 'core_loca': did you mean 'core_local'?"),
        (("core_local", "--jobs", "0"), "--jobs is 0"),
        (("local", "--jobs", "2"), "'local', which takes neither --jobs nor --slurm"),
        (("core_slurm", "--slurm", "cluster=mine"), "--slurm cluster is 'mine'"),
    ],
)
def test_mistakes_launch_nothing(domainbed, capsys, arguments, said):
    if arguments[0] in NEEDS:
        pytest.importorskip(NEEDS[arguments[0]])
    assert main([*SWEEP, *SMALL, "--command_launcher", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.parametrize("launcher", NEEDS)
def test_a_missing_package_is_refused_with_the_extra(domainbed, capsys, monkeypatch, launcher):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name in NEEDS.values() else find_spec(name, *more),
    )
    assert main([*SWEEP, *SMALL, "--command_launcher", launcher]) == 2
    error = capsys.readouterr().err
    assert "is not installed: pip install 'core-tuning[sweeps]'" in error
    assert not Path("out").exists()


def test_a_launcher_of_the_checkouts_own_is_not_hidden(domainbed, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(domainbed))
    monkeypatch.setitem(registry(), "core_ray", print)
    with pytest.raises(UserError, match="a launcher 'core_ray' of its own"):
        add_launchers(registry())
    assert registry()["core_ray"] is print


def test_help_lists_them(domainbed, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["domainbed", "sweep", "--help"])
    printed = capsys.readouterr().out
    assert "of core_local, core_slurm, core_ray, which are launchers beside DomainBed's" in printed
    assert "--slurm KEY=VALUE" in printed
