"""Our launchers for DomainBed's sweeps: every command runs once, and how it ended is said."""

from __future__ import annotations

import ast
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning.errors import UserError
from core_tuning.sweeps.domainbed_launchers import (
    NAMES,
    VARIABLE,
    check,
    job_of,
    launchers,
    take_place,
)
from core_tuning.sweeps.launch import Place, run_and_wait

# Notes that it was started, where and with what; arguments: CODE --output_dir FOLDER.
JOB = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[3])
folder.mkdir(parents=True)
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CORE_TUNING_CHECKPOINT", "MINE")
(folder / "seen").write_text(str({name: os.environ.get(name) for name in names}))
sys.exit(int(sys.argv[1]))
"""
# Starts a launcher on commands, as DomainBed's sweep does.
DRIVER = """
import sys
from core_tuning.sweeps.domainbed_launchers import launchers, take_place
launchers(take_place(["--jobs", "2"])[0])["core_local"](sys.argv[1:])
"""


@pytest.fixture
def make_command(tmp_path, monkeypatch):
    """Make the command of a job, with a variable before it as ours have."""
    script = tmp_path / "job with spaces.py"
    script.write_text(JOB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORE_TUNING_CHECKPOINT", "mine.pt")

    def call(name, code=0):
        words = [sys.executable, "-S", str(script), str(code), "--output_dir", f"out/{name}"]
        return "MINE='a b' " + shlex.join(words)

    return call


def seen(name):
    return ast.literal_eval(Path("out", name, "seen").read_text())


def launch(capsys, name, commands, *options):
    launchers(take_place(options)[0])[name](commands)
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]


def check_launched(lines):
    assert len(lines) == 3
    assert " left" in lines[0]
    assert lines[2].startswith("[3/3]")
    assert any("the job of out/a is done" in line for line in lines)
    assert any("the job of out/b ended with exit code 3" in line for line in lines)
    for name in "abc":
        assert seen(name)["MINE"] == "a b"
        assert seen(name)["CORE_TUNING_CHECKPOINT"] == "mine.pt"


def test_local(make_command, capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    commands = [make_command("a"), make_command("b", 3), make_command("c")]
    check_launched(launch(capsys, "core_local", commands, "--jobs", "2"))
    assert (seen("a")["CUDA_VISIBLE_DEVICES"], seen("a")["OMP_NUM_THREADS"]) == ("5", "3")


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_slurm_by_submitits_own_executors(make_command, capsys, monkeypatch, cluster):
    pytest.importorskip("submitit")
    monkeypatch.setattr("core_tuning.sweeps.launch_cluster.SLURM_POLL_SECONDS", 0.1)
    commands = [make_command("a"), make_command("b", 3), make_command("c")]
    check_launched(launch(capsys, "core_slurm", commands, "--slurm", f"cluster={cluster}"))
    assert list(Path("out/slurm").iterdir())


def test_slurm_says_which_job_it_ended(make_command, capsys, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setattr("core_tuning.sweeps.launch_cluster.SLURM_POLL_SECONDS", 0.1)
    # Ends the process that waits for the command's, as Slurm does when the time is over.
    text = "kill -KILL $(cut -d ' ' -f 4 /proc/$PPID/stat); : --output_dir out/a"
    (line,) = launch(capsys, "core_slurm", [text], "--slurm", "cluster=local")
    assert line.startswith("[1/1] the job of out/a is lost: Slurm ended its job, see ")
    assert Path(line.rpartition("see ")[2]).is_file()


def test_ray_on_this_machine(make_command, capsys):
    ray = pytest.importorskip("ray")
    commands = [make_command("a"), make_command("b", 3), make_command("c")]
    check_launched(launch(capsys, "core_ray", commands, "--jobs", "2"))
    assert not ray.is_initialized()


def test_a_finished_sweep_launches_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("core_tuning.sweeps.domainbed_launchers.check_installed", print)
    for launch_commands in launchers(Place()).values():
        launch_commands([])
    assert capsys.readouterr().err == ""


def test_a_command_takes_along_what_decides_about_it(make_command, monkeypatch, tmp_path):
    job = job_of(make_command("a"))
    monkeypatch.delenv("CORE_TUNING_CHECKPOINT")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_and_wait(job) == 0
    monkeypatch.chdir(tmp_path)
    assert seen("a")["CORE_TUNING_CHECKPOINT"] == "mine.pt"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_commands_end_with_the_sweep(tmp_path, fakes, how):
    if how == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux ends the children of what is killed")
    waiting = "import os, sys, time; open(sys.argv[2], 'w').write(str(os.getpid())); time.sleep(99)"
    commands = [
        "MINE=1 " + shlex.join([sys.executable, "-S", "-c", waiting, "--output_dir", name])
        for name in "abc"
    ]
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, *commands], cwd=tmp_path)
    files = [tmp_path / "a", tmp_path / "b"]
    fakes.wait_until(lambda: all(file.exists() and file.read_text() for file in files))
    driver.send_signal(how)
    assert driver.wait(30) == (143 if how == signal.SIGTERM else -how)
    for file in files:
        fakes.wait_until(lambda file=file: not fakes.alive(int(file.read_text())))
    assert not (tmp_path / "c").exists()


def test_options_are_taken_out_of_a_command_line(monkeypatch):
    given = ["launch", "--jobs", "2", "--hparams", '{"a": -1}', "--slurm", "time=9", "--steps", "2"]
    place, rest = take_place(given)
    assert place == Place(2, {"time": "9"})
    assert rest == ["launch", "--hparams", '{"a": -1}', "--steps", "2"]
    monkeypatch.setenv(VARIABLE, "--jobs 7 --slurm partition=gpu --ray-address auto")
    assert take_place()[0] == Place(7, {"partition": "gpu"}, "auto")
    assert take_place(given)[0] == Place(2, {"partition": "gpu", "time": "9"}, "auto")


@pytest.mark.parametrize(
    ("variable", "options", "message"),
    [
        ("", ["--jobs", "0"], "--jobs is 0: expected at least 1"),
        ("", ["--slurm", "launch"], "--slurm is 'launch': expected KEY=VALUE"),
        ("--slurm a=1", ["--slurm", "a=2"], "--slurm gives 'a' twice"),
        ("--job 3", [], rf"{VARIABLE} is '--job 3' .*such as '--jobs 4'"),
        ("'", [], rf"{VARIABLE} is .*No closing quotation"),
    ],
)
def test_bad_options(monkeypatch, variable, options, message):
    monkeypatch.setenv(VARIABLE, variable)
    with pytest.raises(UserError, match=message):
        take_place(options)


def test_a_launcher_that_cannot_run_is_refused_before_it_is_called(monkeypatch, tmp_path):
    check("core_local", Place(workers=2))
    check("local", Place())
    with pytest.raises(UserError, match=r"'local', which takes neither --jobs .*core_local"):
        check("local", Place(workers=2))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("core_slurm", "core_ray"):
        with pytest.raises(UserError, match=r"not installed: pip install 'core-tuning\[sweeps\]'"):
            check(name, Place())
        with pytest.raises(UserError, match=r"core-tuning\[sweeps\]"):
            launchers(Place())[name]([])


def test_slurm_is_refused_where_it_is_not(monkeypatch, tmp_path):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no srun here"):
        check("core_slurm", Place())
    with pytest.raises(UserError, match="--slurm cluster is 'mine'"):
        check("core_slurm", Place(slurm={"cluster": "mine"}))


def test_what_is_no_command_of_a_sweep_is_refused():
    with pytest.raises(UserError, match="The command 'true' names no --output_dir"):
        launchers(Place())["core_local"](["true"])


def test_names_do_not_clash_with_domainbeds():
    assert list(NAMES) == ["core_local", "core_slurm", "core_ray"]
    assert list(launchers()) == list(NAMES)
