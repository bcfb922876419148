"""`core-tuning sweep`: help, list, and unknown sub-commands."""

from __future__ import annotations

import subprocess
import sys

from core_tuning.cli import main
from core_tuning.sweeps.command import COMMANDS
from core_tuning.sweeps.definition import load_sweep, sweep_names
from core_tuning.sweeps.options import parse


def test_help_names_every_command(capsys):
    assert main(["sweep", "--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {name} " in out for name in COMMANDS)


def test_list_shows_every_definition(capsys):
    assert main(["sweep", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sweep_names()
    sweep = load_sweep("table02")
    (line,) = [line for line in lines if line.startswith("table02")]
    assert f"{len(sweep.runs)} runs" in line
    assert sweep.title in line


def test_an_unknown_command(refused):
    assert "no command 'stats': did you mean 'status'?" in refused("sweep", "stats")


def test_nothing_heavy_is_imported():
    program = (
        "import sys\n"
        "from core_tuning.cli import main\n"
        "main(['sweep', 'list']), main(['sweep', 'run', 'emoji', '--dry-run'])\n"
        "print('loaded:', *sorted({'torch', 'numpy', 'pandas', 'ray'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1:] == ["loaded:"], run.stderr


def test_the_folder_bears_the_definitions_name():
    assert str(parse(["table02"]).output) == "runs/sweep-table02"
    assert str(parse(["my/own.toml"]).output) == "runs/sweep-own"
    assert str(parse(["table02", "--output", "x"]).output) == "x"


def test_pairs_are_collected():
    options = parse(
        ["emoji", "--only", "row=CE", "row=CE, manifold mixup", "--set", "a=b=c", "--slurm", "t=1"]
    )
    assert options.only == {"row": ["CE", "CE, manifold mixup"]}
    assert options.settings == {"a": "b=c"}
    assert options.slurm == {"t": "1"}
