"""The exit codes: of Ctrl-C, and of a process that refuses its input."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from core_tuning.cli import main


def test_ctrl_c(capsys, monkeypatch):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("core_tuning.classification.finetune.main", stop)
    assert main(["finetune"]) == 130
    assert "--resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["finetun"], "did you mean 'finetune'"),
        (["finetune", "--eta", "nan"], "eta is nan"),
        (["finetune", "--pretrained", "gone.pth"], "gone.pth"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else None,
)
def test_the_exit_code_of_a_process(kit, tmp_path, argv, pattern):
    run = subprocess.run(
        [sys.executable, "-m", "core_tuning", *argv], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert re.search(pattern, kit.only_sentence(run.stderr))
    assert list(tmp_path.iterdir()) == []
