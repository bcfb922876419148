"""`core-tuning sweep report`: its files, and what it refuses or must not lose."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from core_tuning.cli import main
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.folder import start_sweep


def test_the_files(sweep, capsys, report, contents, kit):
    assert report(sweep) == 0
    out = capsys.readouterr().out
    assert "6 of 9 runs are finished" in out and "report/report.md" in out
    assert "not shown here: " in out or "holds here: " in out
    folder = sweep.path / "report"
    assert sorted(contents(folder)) == kit.FILES
    cells = pd.read_csv(folder / "table.csv", keep_default_na=True)
    assert cells["n"].tolist() == [2, 2, 2] and cells["expected"].tolist() == [3, 3, 3]
    assert cells["paper"].tolist() == [94.70, 97.31, 97.31]
    values = pd.read_csv(folder / "values.csv")
    assert sorted(values["id"]) == sorted(id for id, run in sweep.runs.items() if run.seed < 2)
    text = (folder / "report.md").read_text()
    assert "paper 97.31 ± s.e. 0.09" in text and "(2 of 3)" in text
    assert "## Findings" in text and "6 of 9 runs are finished" in text
    assert "Made by `core-tuning sweep report table23 --output" in text
    kept = json.loads((folder / "report.json").read_text())
    assert kept["name"] == "table23" and len(kept["findings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["table2"], "no sweep 'table2': did you mean 'table02'?"),
        (["tabel23"], "no sweep 'tabel23': did you mean 'table23'?"),
        (["table24"], "runs/sweep-table24 is not a sweep's folder: it has no sweep.json"),
        (["gone.toml"], "runs/sweep-gone is not a sweep's folder"),
        ([], "Give either NAME, a sweep's, or --domainbed DIR"),
        (["table02", "--domainbed", "x"], "Give either NAME, a sweep's, or --domainbed DIR"),
        (["--domainbed", "x", "--output", "y"], "--output is y, which is a sweep's folder"),
        (["--domainbed", "nowhere"], "--domainbed is nowhere, which is not a folder"),
        (["table02", "--pages"], "unrecognized arguments: --pages"),
    ],
)
def test_bad_command_lines(refused, monkeypatch, tmp_path, arguments, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refused("sweep", "report", *arguments)


def test_a_folder_of_another_sweep(sweep, refused):
    error = refused("sweep", "report", "table24", "--output", sweep.path)
    assert "is of another sweep, 'table23' and not 'table24'" in error
    error = refused("sweep", "report", "table2", "--output", sweep.path)
    assert "did you mean 'table02'?" in error
    error = refused("sweep", "report", "my.toml", "--output", sweep.path)
    assert "is of another sweep" in error


def test_no_finished_run(tmp_path, filled, refused_report):
    folder = filled(tmp_path, "table23", which=lambda run: False)
    folder.failure_path(next(iter(folder.runs))).write_text(json.dumps({"last_line": "boom"}))
    error = refused_report(tmp_path)
    assert "is finished (0 are running, 1 failed, 8 are left): finish some by" in error
    assert not (tmp_path / "report").exists()


def test_no_readable_run(sweep, refused_report):
    for run in sweep.runs.values():
        if sweep.is_done(run.id):
            (sweep.run_path(run.id) / run.done).write_text("{")
    assert "None of the 6 finished runs" in refused_report(sweep.path)


def test_runs_without_pairs_are_not_called_damaged(tmp_path, kit, filled, define, refused):
    """Runs that leave out two domains only serve others, and nobody shall delete them."""
    targets = [("zero", 0), ("one", 1), ("both", [0, 1])]
    given = [f"{{ name = '{name}', options = {{ test_envs = {each} }} }}" for name, each in targets]
    text = "title = 'pairs'\ncommand = 'dg'\noptions = { method = 'ce', steps = 300 }\n"
    path = define(text=f"{text}axes.target = [{', '.join(given)}]\n")
    folder = filled(tmp_path / "sweep", path, which=lambda run: False)
    (run,) = [run for run in folder.runs.values() if run.cell["target"] == "both"]
    results = folder.run_path(run.id) / "results.jsonl"
    kit.write_lines(results, [kit.domain_record([0, 1], 0, 0.8, domains=2)])
    (folder.run_path(run.id) / "done").touch()
    arguments = ("sweep", "report", path, "--output", folder.path, "--no-page")
    error = refused(*arguments)
    assert "leave out two domains each, and only serve leave-one-out selection" in error
    assert "delete" not in error
    results.write_text("")
    assert f"such as runs/{run.id}/results.jsonl: delete" in refused(*arguments)


def test_a_damaged_sweep_file(sweep, refused_report):
    path = sweep.path / "sweep.json"
    kept = json.loads(path.read_text())
    kept["runs"][0]["cell"]["part"] = "other"
    path.write_text(json.dumps(kept))
    assert "is damaged (a run of the part 'other'" in refused_report(sweep.path)
    path.write_text("{")
    assert "is damaged" in refused_report(sweep.path)


def test_failed_runs_are_named(sweep, report):
    failed = next(run for run in sweep.runs.values() if run.seed == 2)
    sweep.failure_path(failed.id).write_text(json.dumps({"last_line": "boom: no *such* GPU"}))
    assert report(sweep) == 0
    text = (sweep.path / "report" / "report.md").read_text()
    assert f"Failed: {failed.title} ({failed.id}): boom: no \\*such\\* GPU" in text


def test_damaged_lines_are_skipped_counted_and_named(tmp_path, filled, capsys):
    folder = filled(tmp_path, "table08", seeds=[0], only={"target": ["PACS, photo"]})
    first, second, third = folder.runs
    path = folder.run_path(first) / "results.jsonl"
    lines = path.read_text().splitlines()
    whole = json.loads(lines[1])
    bad = [
        "{", "", "[]", "null", '{"step": 3}', lines[0][: len(lines[0]) // 2],
        json.dumps({**whole, "args": {}}), json.dumps({**whole, "env1_in_acc": 3.5}),
        json.dumps({**whole, "env1_out_acc": None}), json.dumps({**whole, "step": "x"}),
        json.dumps({**whole, "args": {**whole["args"], "test_envs": [9]}}),
        json.dumps({**whole, "env0_in_acc": float("nan")}),
        json.dumps({**whole, "step": float("inf")}), json.dumps({**whole, "hparams": None}),
        json.dumps({**whole, "args": {**whole["args"], "trial_seed": None}}),
    ]  # fmt: skip
    path.write_text("\n".join([bad[0], *lines, *bad[1:]]) + "\n")
    (folder.run_path(second) / "results.jsonl").write_bytes(b"\xff\xfe\n")
    (folder.run_path(third) / "results.jsonl").unlink()
    assert main(["sweep", "report", "table08", "--output", str(tmp_path), "--no-page"]) == 0
    error = capsys.readouterr().err
    expected = (
        f"17 damaged lines were skipped: runs/{first}/results.jsonl (15 lines), "
        f"runs/{second}/results.jsonl, runs/{third}/results.jsonl."
    )
    assert error == f"core-tuning: warning: {expected}\n"
    kept = json.loads((tmp_path / "report" / "report.json").read_text())
    assert expected in kept["notes"]
    values = pd.read_csv(tmp_path / "report" / "values.csv")
    assert set(values["id"]) == {first}


@pytest.mark.parametrize(
    "broken",
    ["", "{", "null", "[]", "{}", '{"test": {"top1": null}}', '{"test": {"top1": NaN}}',
     '{"test": {"top1": 101}}'],
)  # fmt: skip
def test_damaged_results_are_left_out(sweep, capsys, broken, report):
    run = next(iter(sweep.runs.values()))
    (sweep.run_path(run.id) / run.done).write_text(broken)
    assert report(sweep) == 0
    assert f"1 damaged line was skipped: runs/{run.id}/result.json." in capsys.readouterr().err
    values = pd.read_csv(sweep.path / "report" / "values.csv")
    assert run.id not in set(values["id"]) and len(values) == 5


def test_many_damaged_files_are_counted(sweep, tmp_path, filled, capsys):
    folder = filled(tmp_path / "many", "table02", seeds=[0])
    for run in list(folder.runs.values())[:9]:
        (folder.run_path(run.id) / run.done).write_text("{")
    assert main(["sweep", "report", "table02", "--output", str(folder.path), "--no-page"]) == 0
    error = capsys.readouterr().err
    assert error.startswith("core-tuning: warning: 9 damaged lines were skipped: runs/")
    assert error.endswith("and 4 more.\n")


def test_a_changed_definition_is_said(tmp_path, filled, define, capsys):
    path = define()
    folder = filled(tmp_path / "sweep", path)
    arguments = ["sweep", "report", path, "--output", str(folder.path), "--no-page"]
    assert main(arguments) == 0
    notes = json.loads((folder.path / "report" / "report.json").read_text())["notes"]
    assert not any("has changed" in note for note in notes)
    define("[axes]\ndataset = ['dtd']\n")
    assert main(arguments) == 0
    notes = json.loads((folder.path / "report" / "report.json").read_text())["notes"]
    assert any("The definition of mine has changed since" in note for note in notes)
    Path(path).unlink()
    assert main(arguments) == 0


def test_findings_without_runs_are_counted(tmp_path, filled, capsys):
    claimed = "AT-Core-tuning", "AT-CE"
    trained = filled(
        tmp_path / "sweep", "emoji_robustness", which=lambda run: run.cell["row"] in claimed
    )
    assert main(["sweep", "report", "emoji_robustness", "--output", str(trained.path)]) == 0
    out = capsys.readouterr().out
    assert "Core-tuning makes adversarial training more robust to PGD-10 (Table 9)." in out
    assert "The contrastive loss makes" not in out
    assert "not measured: 2 of 5 findings; their runs are missing." in out


def test_claims_may_be_added_later(tmp_path, filled, define):
    """They run nothing: the folder stays this sweep's, and its runs are judged by them."""
    path = define()
    folder = filled(tmp_path / "sweep", path)
    define("\n# A comment.\n[[finding]]\nsays = 'Better.'\nbetter = 'Core-tuning'\nthan = 'CE'\n")
    arguments = ["sweep", "report", path, "--output", str(folder.path), "--no-page"]
    assert main(arguments) == 0
    kept = json.loads((folder.path / "report" / "report.json").read_text())
    assert [finding["says"] for finding in kept["findings"]] == ["Better."]
    assert start_sweep(folder.path, load_sweep(path)).definition == Path(path).read_text()


def test_without_pandas(sweep, monkeypatch, refused_report):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = refused_report(sweep.path)
    assert "needs pandas, which is not installed: pip install 'core-tuning[sweeps]'" in error


def test_the_page_is_part_of_the_report(sweep, report, contents, kit):
    assert main(["sweep", "report", "table23", "--output", str(sweep.path)]) == 0
    folder = sweep.path / "report"
    assert (folder / "report.html").is_file()
    kept = json.loads((folder / "report.json").read_text())
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(kept["files"]) == there
    # Its figures are the report's own, so that another can take its place.
    assert report(sweep) == 0
    assert sorted(contents(folder)) == kit.FILES
