"""What `core-tuning domainbed train` and `sweep` refuse before anything starts."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from core_tuning.algorithms import domainbed
from core_tuning.cli import main
from core_tuning.stopping import Stopped

SWEEP = (
    "sweep", "launch", "--datasets", "Debug28", "--algorithms", "CoreTuning", "--n_hparams", "1",
    "--n_trials", "1", "--data_dir", ".", "--output_dir", "out", "--command_launcher", "dummy",
    "--skip_confirmation", "--hparams", '{"batch_size": 8}',
)  # fmt: skip


def write_pacs(root, domains=("art", "cartoon", "photo", "sketch"), images=12):
    for domain in domains:
        folder = root / "PACS" / domain / "dog"
        folder.mkdir(parents=True)
        for index in range(images):
            (folder / f"{index}.jpg").touch()


def complaint(capsys, *arguments):
    assert main(["domainbed", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "PAC"], "no data set 'PAC': did you mean 'PACS'?"),
        (["--algorithm", "CoreTunin"], "no algorithm 'CoreTunin': did you mean 'CoreTuning'?"),
        (["--dataset", "PACS"], "name the folder that holds it by --data_dir"),
        (["--dataset", "PACS", "--data_dir", "nowhere"], "nowhere, which is not a folder"),
        (["--dataset", "PACS", "--data_dir", "."], "--data_dir . holds no PACS/"),
        (["--dataset", "Debug28", "--hparams", "{lr: 1}"], "expected a JSON object"),
        (["--dataset", "Debug28", "--hparams", "[1]"], "expected a JSON object"),
        (["--dataset", "Debug28", "--test_envs", "0", "3"], "no environment 3 to test on"),
        (["--dataset", "Debug28", "--test_envs", "2", "2"], "--test_envs names 2 twice"),
        (["--dataset", "Debug28", "--test_envs", "2", "0", "1"], "all environments of Debug28"),
        (["--dataset", "Debug28", "--workers", "-1"], "--workers is -1"),
        (["--dataset", "Debug28", "--seed", str(2**64)], f"--seed is {2**64}: expected 0 to"),
        (["--dataset", "Debug28", "--trial_seed", "-1"], "--trial_seed is -1: expected 0 to"),
        (["--dataset", "Debug28", "--holdout_fraction", "nan"], "--holdout_fraction is nan"),
        (["--dataset", "Debug28", "--holdout_fraction", "0"], "--holdout_fraction is 0"),
        (["--dataset", "Debug28"], "the domain 1 has 13 images to train on"),
        (["--dataset", "Debug28", "--hparams", "[" * 100_000], "[[' (maximum"),
        (
            ["--dataset", "Debug28", "--hparams", '{"lr": NaN}'],
            "lr is nan: expected a finite number",
        ),
        (
            ["--dataset", "Debug28", "--hparams", '{"lr": -1e999}'],
            "lr is -inf: expected a finite number",
        ),
        (["--dataset", "Debug28", "--hparams", '{"batch_size": [8]}'], "batch_size is [8]"),
        (["--dataset", "Debug28", "--hparams", '{"checkpoint": 8}'], "checkpoint is 8"),
        (
            ["--dataset", "Debug28", "--hparams", r'{"checkpoint": "\ud800"}'],
            r"'\ud800' cannot be read",
        ),
        (["--dataset", "Debug28", "--data_dir", "a\udcff"], r"'a\udcff' is not UTF-8"),
        (
            ["--dataset", "Debug28", "--hparams", '{"batch_size": 8}', "--output_dir", "o" * 300],
            "oo: File name too long",
        ),
        (
            ["--dataset", "PACS", "--algorithm", "CECon"],
            "CECon has no checkpoint to start from",
        ),
        (
            ["--dataset", "Debug28", "--algorithm", "CECon", "--hparams", '{"etta": 1}'],
            "no hyper-parameter 'etta': did you mean 'eta'?",
        ),
        (
            ["--dataset", "Debug28", "--hparams", '{"checkpoint": "gone.pt"}'],
            "The file gone.pt does not exist",
        ),
    ],
)
def test_train_refuses(domainbed, capsys, arguments, said):
    assert said in complaint(capsys, "train", "--output_dir", "out", *arguments)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--datasets", "Debug82"], "did you mean 'Debug28'?"),
        (["--algorithms", "CORALL"], "did you mean 'CORAL'?"),
        (["--command_launcher", "loca"], "did you mean 'local'?"),
        (["--command_launcher", "multi_gpu"], "use --command_launcher local"),
        (["--hparams", "{}"], "the domain 1 has 13 images to train on"),
        (["--hparams", '{"tau": 1}'], "CoreTuning has no hyper-parameter 'tau'"),
        (
            ["--datasets", "PACS", "--hparams", '{"checkpoint": "random"}'],
            "--data_dir . holds no PACS/",
        ),
        (["--datasets", "EmojiDomains", "--hparams", '{"checkpoint": ""}'], "has no checkpoint"),
        (["--train-args", "--steps 3"], "--train-args has '--steps', which the sweep sets"),
        (["--train-args", "--frequency 3"], "'--frequency', which train does not know"),
        (["--train-args", "'"], "quotes do not match"),
        (["--n_hparams", "many"], "argument --n_hparams: invalid int value"),
        (["--n_trials", str(10**9)], "The sweep has 1,000,000,000 jobs and more"),
        (["--holdout_fraction", "nan"], "--holdout_fraction is nan"),
        (["--hparams", "[" * 100_000], "[[' (maximum"),
        (["--output_dir", "a\udcff"], r"'a\udcff' is not UTF-8"),
    ],
)
def test_sweep_refuses_and_launches_nothing(domainbed, capsys, monkeypatch, arguments, said):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert said in complaint(capsys, *SWEEP, *arguments)
    assert not Path("out").exists()


def test_the_smallest_training_domain_of_a_folder_counts(domainbed, capsys, tmp_path):
    write_pacs(tmp_path)
    given = ("--hparams", '{"checkpoint": "embedded", "batch_size": 11}', "--datasets", "PACS")
    said = complaint(capsys, *SWEEP, *given)
    assert "CoreTuning on PACS with hparams_seed 0: the domain cartoon has 10 images" in said
    # Of 12 images the held-out fifth is 2.
    fits = ("--hparams", '{"checkpoint": "embedded", "batch_size": 10}', "--datasets", "PACS")
    assert main(["domainbed", *SWEEP, *fits]) == 0
    assert "Launched 10 jobs!" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("OSError(28, 'No space left on device', 'out.txt')", "(out.txt: No space left on device)"),
        ("OSError(28, 'No space left on device')", "(No space left on device)"),
        ("RuntimeError('PytorchStreamWriter failed writing file data/0')", "(a model cannot be w"),
    ],
)
def test_what_the_system_refuses_is_said(fake_domainbed, capsys, monkeypatch, error, said):
    """Also where DomainBed's own streams write into what is full."""
    script = fake_domainbed / "domainbed" / "scripts" / "list_top_hparams.py"
    script.write_text(f"import sys\nsys.stdout = sys.stderr = None\nraise {error}\n")
    monkeypatch.setenv("DOMAINBED_ROOT", str(fake_domainbed))
    sentence = complaint(capsys, "list_top_hparams")
    assert "DomainBed's list_top_hparams was refused a file or a connection" in sentence
    assert said in sentence


def test_what_is_wrong_with_the_script_is_its_own(fake_domainbed, monkeypatch):
    script = fake_domainbed / "domainbed" / "scripts" / "list_top_hparams.py"
    script.write_text("raise RuntimeError('theirs')\n")
    monkeypatch.setenv("DOMAINBED_ROOT", str(fake_domainbed))
    with pytest.raises(RuntimeError, match="theirs"):
        main(["domainbed", "list_top_hparams"])


@pytest.mark.parametrize(
    ("algorithms", "said"),
    [
        ("x = 1\n", "domainbed.algorithms has no list 'ALGORITHMS': this copy of DomainBed"),
        ("def x(:\n", "cannot be imported (SyntaxError: invalid syntax (algorithms.py, line 1))"),
        ("import numpy\n1 / 0\n", "algorithms.py, line 2): mend this copy of DomainBed, or use"),
    ],
)
def test_a_checkout_of_something_else_is_refused(
    fake_domainbed, capsys, monkeypatch, algorithms, said
):
    (fake_domainbed / "domainbed" / "algorithms.py").write_text(algorithms)
    monkeypatch.setenv("DOMAINBED_ROOT", str(fake_domainbed))
    for command in ("train", "sweep", "collect_results"):
        assert said in complaint(capsys, command, "launch")


def test_a_stray_folder_among_the_domains_is_refused(domainbed, capsys, tmp_path):
    write_pacs(tmp_path, ("art", "cartoon", "photo", "sketch", "splits"), 1)
    said = complaint(capsys, "train", "--dataset", "PACS", "--data_dir", ".")
    assert (
        "5 folders (art, cartoon, photo, sketch, splits) where the data set has 4 domains" in said
    )


def test_dummy_prints_commands_that_know_the_names(domainbed, capsys):
    assert main(["domainbed", *SWEEP, "--train-args", "--skip_model_save", "--workers", "3"]) == 0
    printed = capsys.readouterr().out
    commands = [line for line in printed.splitlines() if line.startswith("Dummy launcher:")]
    assert len(commands) == 6
    for command in commands:
        assert f"DOMAINBED_ROOT={domainbed} " in command
        assert "-m core_tuning domainbed train --algorithm CoreTuning" in command
        assert command.endswith("--skip_model_save --workers 3")


def test_a_sweep_that_nobody_can_confirm_says_so(domainbed, capsys, monkeypatch):
    def no_terminal(_):
        raise EOFError

    monkeypatch.setattr("builtins.input", no_terminal)
    arguments = [argument for argument in SWEEP if argument != "--skip_confirmation"]
    assert "add --skip_confirmation" in complaint(capsys, *arguments)


def test_no_checkout_and_unknown_commands_are_said(clean_process, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path))
    assert "run 'core-tuning domainbed install'" in complaint(capsys, "train")
    assert "did you mean 'domainbed sweep'?" in complaint(capsys, "sweeep")
    assert main(["domainbed"]) == 0
    assert "collect_results" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stop", "code", "by"),
    [(Stopped(signal.SIGTERM), 143, " by SIGTERM"), (KeyboardInterrupt(), 130, "")],
)
def test_a_signal_ends_with_its_own_exit_code(capsys, monkeypatch, stop, code, by):
    def interrupted():
        raise stop

    monkeypatch.setattr(domainbed, "prepare", interrupted)
    assert main(["domainbed", "train"]) == code
    assert f"core-tuning: stopped{by}; DomainBed cannot resume" in capsys.readouterr().err


def job(folder, *, done=False, error=None):
    folder.mkdir()
    if done:
        (folder / "done").touch()
    if error is not None:
        (folder / "err.txt").write_text(error)
    return folder


@pytest.mark.parametrize("waits", [True, False])
def test_failed_jobs_are_listed_with_their_last_line(tmp_path, capsys, waits):
    folders = [
        job(tmp_path / "fine", done=True),
        job(tmp_path / "failed", error="Traceback\n  File\nmodule.SomeError: no room\n\n"),
        job(tmp_path / "running", error="UserWarning: old\n10%\r20%"),
    ]
    assert domainbed.report(folders, waits=waits) == 1
    captured = capsys.readouterr()
    assert "failed: module.SomeError: no room" in captured.err
    assert ("running: 20%" in captured.err) == waits
    assert ("1 of 3 jobs are not finished yet" in captured.out) == (not waits)


def test_a_finished_sweep_ends_well(tmp_path, capsys):
    assert domainbed.report([job(tmp_path / "fine", done=True)], waits=True) == 0
    assert capsys.readouterr() == ("", "")


def test_help_lists_domainbeds_options_and_ours(domainbed, capsys):
    assert main(["domainbed", "train", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "\n  --checkpoint_freq\n" in printed
    assert "--workers N" in printed
    with pytest.raises(SystemExit, match="0"):
        main(["domainbed", "sweep", "--help"])
    printed = capsys.readouterr().out
    assert "--n_hparams_from" in printed
    assert "--train-args ARGS" in printed
