"""The command line's version and help, the latter without waiting for torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from core_tuning import __version__
from core_tuning.cli import main
from core_tuning.commands import COMMANDS


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


@pytest.mark.parametrize(
    "line",
    ["inspect gone.pth", "finetune --pretrained gone.pth", "finetune --data-dir gone",
     "dg --pretrained gone.pth", "dg --data-dir gone", "robust train --data-dir gone",
     "robust evaluate gone", "finetune --resume gone", "finetune --eta nan", "evaluate gone"],
)  # fmt: skip
def test_mistakes_that_need_no_torch_do_not_wait_for_it(tmp_path, line):
    program = (
        "import sys\n"
        "from core_tuning.cli import main\n"
        "assert main(sys.argv[1:]) == 2\n"
        "print('loaded:', *sorted({'torch', 'torchvision', 'timm', 'scipy'} & set(sys.modules)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *line.split()], capture_output=True, text=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert run.stdout == "loaded:\n", run.stderr
    assert "gone" in run.stderr or "nan" in run.stderr


# The others print the help of DomainBed's own scripts, where there is a checkout.
@pytest.mark.parametrize("command", [None, *(name for name in COMMANDS if COMMANDS[name].options)])
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
