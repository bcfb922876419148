"""Two processes on one run's folder: one works, the other says so, and nothing is written twice."""

from __future__ import annotations

import signal

import pytest

FINETUNE = (
    "finetune", "--dataset", "folder", "--data-dir", "{base}/data", "--pretrained", "embedded",
    "--transforms", "small", "--image-size", 16, "--batch-size", 4, "--epochs", 2, "--workers", 0,
    "--checkpoint-minutes", 0, "--output", "out",
)  # fmt: skip
COMMANDS = {
    "finetune": FINETUNE,
    "dg": (
        "dg", "--dataset", "toys", "--data_dir", "{base}", "--image-size", 16, "--steps", 20,
        "--eval-every", 2, "--workers", 0, "--checkpoint-minutes", 0, "--output_dir", "out",
        "--hparams", '{"checkpoint": "embedded", "batch_size": 4}',
    ),
    "robust evaluate": (
        "robust", "evaluate", "{base}/evaluated", "--l2", 0.3, 0.4, "--linf", "2/255",
        "--attacks", "fgsm", "pgd10", "--no-masking-checks", "--workers", 0, "--output", "out",
    ),
}  # fmt: skip
# How long a process waits for another's lock is of no interest here.
IMPATIENT = "from core_tuning import files; files.PATIENCE_SECONDS = 0.2"


@pytest.fixture(scope="session")
def line(kit, shelf):
    """The arguments of a command; a model is made where it needs one."""

    def get(name):
        argv = [str(word).replace("{base}", str(shelf)) for word in COMMANDS[name]]
        if name == "robust evaluate" and not (shelf / "evaluated").exists():
            kit.Command(shelf / "model", get("finetune")).finish()
            (shelf / "model" / "out").rename(shelf / "evaluated")
        return argv

    return get


@pytest.fixture(scope="session")
def alone(kit, shelf, line):
    """What a command leaves that nothing disturbs."""
    known = {}

    def get(name):
        if name not in known:
            folder = shelf / f"alone {name}"
            kit.Command(folder, line(name)).finish()
            known[name] = kit.outcome(folder / "out")
        return known[name]

    return get


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_live_run_is_left_alone(kit, run, line, alone, tmp_path, name, option):
    """While the first process stands still, so that it cannot end before the second one looks."""
    if name.startswith("robust"):
        pytest.importorskip("torchattacks")
    first = run(tmp_path / "work", line(name))
    config = tmp_path / "work" / "out" / "run.json"
    first.wait_until(config.exists, "the start")
    first.send(signal.SIGSTOP)
    before = config.read_bytes()
    second = run(tmp_path / "work", [*line(name), option], prelude=IMPATIENT)
    assert second.wait() == 2, second.said
    assert "core-tuning: error: Another process is at work in out" in second.said
    assert "Traceback" not in second.said
    assert config.read_bytes() == before
    first.send(signal.SIGCONT)
    first.finish()
    assert kit.differing(alone(name), kit.outcome(tmp_path / "work" / "out")) == []


@pytest.mark.parametrize("resumed", [False, True], ids=["started", "resumed"])
@pytest.mark.parametrize("name", COMMANDS)
def test_two_at_once(kit, run, line, alone, tmp_path, name, resumed):
    if name.startswith("robust"):
        pytest.importorskip("torchattacks")
    folder, argv = tmp_path / "work", line(name)
    if resumed:
        killed = run(folder, argv)
        killed.wait_until((folder / "out" / "run.json").exists, "the start")
        killed.kill()
        argv = [*argv, "--resume"]
    both = [run(folder, argv, prelude=IMPATIENT) for _ in range(2)]
    codes = sorted(command.wait() for command in both)
    # The later one may come when a run that it is to go on with is finished, which is no mistake.
    assert codes in ([[0, 2], [0, 0]] if resumed else [[0, 2]]), both[0].said
    assert "Traceback" not in both[0].said
    assert kit.differing(alone(name), kit.outcome(folder / "out")) == []
