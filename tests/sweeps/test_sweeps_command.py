"""`core-tuning sweep`: help, list, and unknown sub-commands."""

from __future__ import annotations

import subprocess
import sys

from core_tuning.cli import main
from core_tuning.commands import COMMANDS
from core_tuning.sweeps.config import Retry, Run
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.reading import sweep_names


def read(*given):
    return Run.read("core-tuning sweep run", given)


def test_help_names_every_command(capsys):
    assert main(["sweep", "--help"]) == 0
    out = capsys.readouterr().out
    names = [name for name in COMMANDS if name.startswith("sweep ")]
    assert len(names) == 5 and all(f"  {name} " in out for name in names)


def test_list_shows_every_definition(capsys):
    assert main(["sweep", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sweep_names()
    sweep = load_sweep("table02")
    (line,) = [line for line in lines if line.startswith("table02")]
    assert f"{len(sweep.runs)} runs" in line
    assert sweep.title in line


def test_an_unknown_command(refused):
    assert "'sweep stats': did you mean 'sweep status'?" in refused("sweep", "stats")


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
    assert str(read("table02").path) == "runs/sweep-table02"
    assert str(read("my/own.toml").path) == "runs/sweep-own"
    assert str(read("table02", "--output", "x").path) == "x"


def test_pairs_are_collected():
    options = read(
        "emoji", "--only", "row=CE", "row=CE, manifold mixup", "--set", "a=b=c", "--slurm", "t=1"
    )
    assert options.kept == {"row": ["CE", "CE, manifold mixup"]}
    assert options.settings == {"a": "b=c"}
    assert options.parameters == {"t": "1"}


def test_ids_may_stand_behind_options():
    for given in (["a", "b", "--output", "x"], ["--output", "x", "a", "b"]):
        assert Retry.read("core-tuning sweep retry", ["table02", *given]).ids == ["a", "b"]
