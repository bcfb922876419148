"""Tables of docs/findings.md, from written run folders."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent.parent / "tools" / "domain_table.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("domain_table", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write_run(tmp_path):
    """Write a run of two steps; the second has the better validation accuracy."""

    def write(parent, algorithm, target, trial, test, variant=None, done=True):
        folder = tmp_path / parent / f"{algorithm}_{variant}_{target}_{trial}"
        folder.mkdir(parents=True)
        hparams = {} if variant is None else {"variant": variant}
        lines = []
        for step, (validation, accuracy) in enumerate([(0.5, 0.99), (0.6, test)]):
            record = {
                "step": step,
                "hparams": hparams,
                "args": {
                    "algorithm": algorithm,
                    "dataset": "EmojiDomains",
                    "test_envs": [target],
                    "trial_seed": trial,
                    "hparams_seed": 0,
                    "seed": trial,
                    "output_dir": str(folder),
                },
            }
            for env in range(4):
                is_target = env == target
                record[f"env{env}_in_acc"] = accuracy if is_target else 0.9
                record[f"env{env}_out_acc"] = 0.1 if is_target else validation
            lines.append(json.dumps(record))
        (folder / "results.jsonl").write_text("\n".join(lines) + "\n")
        if done:
            (folder / "done").write_text("done")
        return folder

    return write


def test_accuracies_are_selected_on_the_source_domains(tool, write_run):
    folders = [write_run("a", "CETuning", 0, 1, 0.4)]
    assert tool.read(folders) == {"CETuning": {(0, 1): pytest.approx(40)}}


def test_an_unfinished_run_is_left_out_and_said(tool, write_run, capsys):
    assert tool.read([write_run("a", "CETuning", 0, 1, 0.4, done=False)]) == {}
    assert "not finished" in capsys.readouterr().err


def test_differences_are_taken_trial_by_trial(tool, write_run):
    """Trials differ by 10 points and the method by 2 in each: no interval is left of it."""
    folders = []
    for trial, level in enumerate((0.3, 0.4, 0.5)):
        for target in (0, 1):
            folders.append(write_run("a", "CETuning", target, trial, level))
            folders.append(write_run("a", "CoreTuning", target, trial, level + 0.02))
            folders.append(write_run("a", "CoreTuning", target, trial, level - 0.01, "released"))
    lines = tool.table(tool.read(folders), ["x", "y"]).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells[0] == ["CETuning", *["40.00 ± 24.84"] * 3, "", "3"]
    assert cells[1][-2:] == ["+2.00 ± 0.00", "3"]
    assert cells[2][0] == "CoreTuning, released" and cells[2][-2] == "-1.00 ± 0.00"


def test_factors_fall_back_on_the_first_baseline(tool, write_run, tmp_path):
    for trial in (0, 1):
        for target in (0, 1):
            write_run("base", "CETuning", target, trial, 0.4)
            write_run("base", "CoreTuning", target, trial, 0.41)
            write_run("eta", "CoreTuning", target, trial, 0.45)
    settings = {name: tool.read(sorted((tmp_path / name).iterdir())) for name in ("base", "eta")}
    rows = tool.factor_table(settings, 2).splitlines()[2:]
    assert rows[0].startswith("| base | 40.00 ± 0.00 | 41.00 ± 0.00 | +1.00")
    assert rows[1].startswith("| eta | as first | 45.00 ± 0.00 | +5.00")
    assert rows[1].endswith("| 2 |")
