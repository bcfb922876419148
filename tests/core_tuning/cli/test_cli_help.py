"""The command line's version and help, the latter without waiting for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core_tuning import __version__
from core_tuning.cli import main
from core_tuning.config import COMMANDS


def python(program: str, *argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, argv)], capture_output=True, text=True
    )


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"core-tuning {__version__}\n"
    for argv in ([], ["-h"], ["--help"], ["help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_does_not_wait_for_torch(command):
    program = (
        "import sys\n"
        "from core_tuning.cli import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as stop:\n"
        "    code = stop.code\n"
        "assert code == 0, code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'accelerate', 'matplotlib', 'numpy'}\n"
        "print('loaded:', *sorted(heavy & set(sys.modules)))\n"
    )
    run = python(program, *([] if command is None else command.split()), "--help")
    assert run.returncode == 0, run.stderr
    assert "usage: core-tuning" in run.stdout
    assert run.stdout.splitlines()[-1] == "loaded:"
