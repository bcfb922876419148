"""Bad input of the commands besides `finetune`: one sentence, and nobody's files deleted."""

from __future__ import annotations

import re

import pytest

from core_tuning.cli import main


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["finetun"], "command 'finetun'.*did you mean 'finetune'"),
        (["xyz"], "command 'xyz': expected one of demo, "),
        (["--frobnicate"], "--frobnicate"),
        (["evaluate"], "RUN"),
        (["evaluate", "gone"], "gone.* does not exist"),
        (["inspect", "gone.pth"], "The file gone.pth does not exist"),
        (["inspect"], "FILE"),
        (["inspect", "--frobnicate", "x"], "--frobnicate"),
        (["demo", "--seeds"], "--seeds"),
        (["demo", "--frobnicate"], "--frobnicate"),
        (["demo", "--steps", "0"], "--steps is 0"),
        (["demo", "--seeds", "-1"], "--seeds"),
        (["demo", "--seeds", "0", "0"], "--seeds"),
        (["demo", "--resume", "--overwrite"], "--resume and --overwrite"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_of_other_commands(kit, capsys, tmp_path, monkeypatch, argv, pattern):
    monkeypatch.chdir(tmp_path)
    # A demo whose mistake goes unnoticed must not train for minutes.
    monkeypatch.setattr("core_tuning.algorithms.dg_run.train", lambda *_: pytest.fail("no error"))
    try:
        sentence = kit.run_bad(capsys, *argv)
    except SystemExit as stop:
        # argparse left to itself prints its usage and exits.
        pytest.fail(f"exit {stop.code} with {capsys.readouterr().err!r}")
    assert re.search(pattern, sentence)
    assert list(tmp_path.iterdir()) == []


def test_inspect_of_a_text_file(kit, capsys, place):
    assert "is not a PyTorch checkpoint" in kit.run_bad(capsys, "inspect", place.file())


def test_demo_refuses_a_folder_with_something_in_it(kit, capsys, place):
    folder = place.full_folder()
    assert "is not empty" in kit.run_bad(capsys, "demo", "--output", folder)


def test_demo_into_a_file(kit, capsys, place):
    assert "file" in kit.run_bad(capsys, "demo", "--output", place.file("file"))


def test_demo_overwrites_demos_alone(capsys, place, monkeypatch):
    """Somebody's own folder of the name of a method, such as this package's, is kept."""
    theirs = place.path / "core_tuning" / "cli.py"
    theirs.parent.mkdir()
    theirs.write_text("mine")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("core_tuning.algorithms.dg_run.train", stop)
    code = main(["demo", "--output", str(place.path), "--overwrite"])
    assert theirs.exists()
    assert code == 2


def test_demo_checks_its_options_before_it_deletes(kit, capsys, place):
    kept = place.path / "ce" / "run.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    kit.run_bad(capsys, "demo", "--output", place.path, "--overwrite", "--steps", 0)
    assert kept.exists()
