"""Every launcher makes every run, once, and says so; Slurm is given what was asked for."""

from __future__ import annotations

import ast
import os

import pytest

from core_tuning.errors import UserError
from core_tuning.sweeps import run as run_module
from core_tuning.sweeps.folder import open_sweep, state_of
from core_tuning.sweeps.launch import HELD, Job, Place, check_installed, local_shares, visible_gpus
from core_tuning.sweeps.launch_cluster import cpus_each
from core_tuning.sweeps.locks import take


@pytest.fixture
def folder(make, fakes):
    return make(fakes.run("ok", mode="threads"), fakes.run("bad", mode="fail"))


def launch(name, folder, **place):
    run_module.make_runs(folder, list(folder.runs), name, Place(**place))
    state = state_of(open_sweep(folder.path))
    assert (state.done, state.failed) == (["ok"], {"bad": "boom: no such GPU"})


def check_said(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert {line.split("]")[1].split()[0] for line in lines} == {"done", "failed"}
    assert " left" in lines[0]
    assert lines[1].startswith("[2/2]")
    assert any("(bad): boom: no such GPU" in line for line in lines)


def test_local(folder, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    launch("local", folder, workers=2)
    check_said(capsys)
    seen = ast.literal_eval((folder.run_path("ok") / "threads").read_text())
    assert seen == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "5"}


def test_a_worker_that_ends_badly_is_given_up(folder, capsys):
    (folder.path / "sweep.json").write_text("{")
    run_module.make_runs(folder, ["ok"], "local", Place(workers=1))
    said = "[1/1] stopped fake ok (ok): its process ended with exit code 2, see"
    assert said in capsys.readouterr().err
    assert "is damaged" in folder.log_path("ok").read_text()


def test_local_takes_over_a_run_whose_holder_ends(folder, capsys, monkeypatch):
    monkeypatch.setattr("core_tuning.sweeps.launch.HELD_SECONDS", 0.1)
    lock = take(folder.lock_path("ok"))

    say = run_module.Tally.say

    def let_go(self, text, share):
        if "bad" in text:
            os.close(lock)
        say(self, text, share)

    monkeypatch.setattr(run_module.Tally, "say", let_go)
    launch("local", folder, workers=1)
    assert capsys.readouterr().err.startswith("[1/2] failed fake bad")


def test_a_run_that_another_process_makes_is_waited_for_on_a_cluster(folder, capsys, monkeypatch):
    monkeypatch.setattr(run_module, "launch", lambda *given: (each for each in [("ok", HELD)]))
    lock = take(folder.lock_path("ok"))

    def finish(seconds):
        folder.run_path("ok").mkdir()
        (folder.run_path("ok") / "done").write_text("")
        os.close(lock)

    monkeypatch.setattr("time.sleep", finish)
    assert run_module.make_runs(folder, ["ok"], "slurm", Place()) == 0
    assert "[1/1] done fake ok (ok)" in capsys.readouterr().err


def test_gpus_are_dealt_out_and_cores_divided(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = local_shares(3, ["0", "1"], 8)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in given] == ["0", "1", "0"]
    assert {each["OMP_NUM_THREADS"] for each in given} == {"2"}
    assert local_shares(3, [], 2) == [{"OMP_NUM_THREADS": "1"}] * 3


def test_visible_gpus(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-x")
    assert visible_gpus() == ["2", "GPU-x"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A'\necho '  MIG 1'\necho 'GPU 1: A'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus() == ["0", "1"]
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []


@pytest.mark.parametrize(("name", "package"), [("slurm", "submitit"), ("ray", "ray")])
def test_a_missing_package_is_refused_with_the_extra(monkeypatch, name, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_installed("local")
    with pytest.raises(UserError, match=rf"{package} is not .*core-tuning\[sweeps\]"):
        check_installed(name)


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_slurm_by_submitits_own_executors(folder, capsys, monkeypatch, cluster):
    pytest.importorskip("submitit")
    monkeypatch.setattr("core_tuning.sweeps.launch_cluster.SLURM_POLL_SECONDS", 0.1)
    launch("slurm", folder, slurm={"cluster": cluster})
    check_said(capsys)


def test_a_preempted_run_is_submitted_again(folder):
    """submitit calls `checkpoint` on SIGUSR, and submits what it returns in the job's place."""
    submitit = pytest.importorskip("submitit")
    from core_tuning.sweeps.launch_cluster import Task

    task = Task()
    job = Job("a", "core_tuning.sweeps.job", (str(folder.path), "a"), resumes=True)
    again = task.checkpoint(job)
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert again.function is task
    assert again.args == (job,)


def test_what_sbatch_is_given(folder, monkeypatch, tmp_path):
    submitit = pytest.importorskip("submitit")
    from core_tuning.sweeps.launch_cluster import Task, make_executor

    # A Slurm of one script, which keeps what it was given.
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("srun", "sbatch"):
        (tools / name).write_text(
            f"#!/bin/sh\ncp $1 '{tmp_path}/batch'\necho Submitted batch job 17\n"
        )
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    given = {"partition": "gpu", "time": "240", "gpus": "1", "licenses": "mine"}
    executor = make_executor(
        Place(workers=1, slurm=given, name=folder.name, output=str(folder.path / "slurm"))
    )
    assert isinstance(executor._executor, submitit.SlurmExecutor)
    ours = [Job(id, "core_tuning.sweeps.job", (str(folder.path), id)) for id in ("ok", "bad")]
    jobs = executor.map_array(Task(), ours)
    assert [job.job_id for job in jobs] == ["17_0", "17_1"]
    lines = (tmp_path / "batch").read_text().splitlines()
    for line in (
        "--partition=gpu", "--time=240", "--gpus-per-node=1", "--array=0-1%1",
        "--job-name=sweep-fake", "--licenses=mine",
    ):  # fmt: skip
        assert f"#SBATCH {line}" in lines
    assert jobs[0].submission().args == (ours[0],)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gpus": "two"}, "--slurm gpus is 'two': expected a whole number"),
        ({"partitoin": "gpu"}, "no 'partitoin'; did you mean 'partition'"),
        ({"cluster": "mine"}, "--slurm cluster is 'mine': expected one of slurm, local, debug"),
        ({}, "there is no srun here"),
    ],
)
def test_slurm_refuses_what_it_cannot_do(folder, monkeypatch, tmp_path, given, message):
    pytest.importorskip("submitit")
    from core_tuning.sweeps.launch_cluster import make_executor, sbatch_parameters

    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=message):
        if given and "cluster" not in given:
            sbatch_parameters(given, "fake", None)
        make_executor(Place(slurm=given, output=str(folder.path / "slurm")))


def test_slurm_gives_a_run_a_day_unless_told_otherwise():
    pytest.importorskip("submitit")
    from core_tuning.sweeps.launch_cluster import sbatch_parameters

    assert sbatch_parameters({}, "fake", None)["slurm_time"] == 24 * 60
    assert sbatch_parameters({"time": "30"}, "fake", None)["slurm_time"] == "30"


def test_ray_on_this_machine(folder, capsys, monkeypatch):
    ray = pytest.importorskip("ray")
    launch("ray", folder, workers=2)
    check_said(capsys)
    assert not ray.is_initialized()


def test_no_ray_cluster_is_refused(folder):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="No Ray cluster answers at 'nowhere'"):
        launch("ray", folder, ray_address="nowhere")


def test_cpus_of_a_ray_task():
    assert [cpus_each(8, workers) for workers in (None, 3, 8, 16)] == [1, 2, 1, 0.5]
