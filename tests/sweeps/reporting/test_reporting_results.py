"""The frames of a sweep's report, beside a slow loop over the files of its runs."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest

from core_tuning.report.summary import summarise
from core_tuning.selection import RULES
from core_tuning.sweeps.expand import load_sweep
from core_tuning.sweeps.folder import open_sweep
from core_tuning.sweeps.reading import read_definition
from core_tuning.sweeps.reporting.collect import read_report

IID, LEAVE_ONE_OUT, ORACLE = RULES
PAIRS = """\
title = "pairs"
command = "dg"
seeds = [0, 1]
options = { method = "ce", steps = 300 }
[axes]
target = [
    { name = "zero", options = { test_envs = 0 } },
    { name = "one", options = { test_envs = 1 } },
    { name = "both", options = { test_envs = [0, 1] } },
]
"""


def values_of(folder, run):
    """{(measure, quantity): percent} of a finished run, read as plainly as can be."""
    path = folder.run_path(run.id)
    if not (path / run.done).exists():
        return {}
    if run.done == "result.json":
        result = json.loads((path / run.done).read_text())
        return {("", "accuracy"): result["test"]["top1"]}
    if run.done == "done":
        lines = [json.loads(line) for line in (path / "results.jsonl").read_text().splitlines()]
        (target,) = lines[0]["args"]["test_envs"]
        others = [number for number in range(4) if number != target]
        by_sources = [sum(line[f"env{number}_out_acc"] for number in others) for line in lines]
        best = lines[by_sources.index(max(by_sources))]
        key = f"env{target}_in_acc"
        return {(IID, "accuracy"): 100 * best[key], (ORACLE, "accuracy"): 100 * lines[-1][key]}
    report = json.loads((path / run.done).read_text())
    names = {"pgd10": "PGD-10", "pgd50x10": "PGD-50x10", "autoattack": "AutoAttack"}
    found = {}
    for row in report["rows"]:
        budget = f"{row['norm']} {row['eps_text']}"
        found[budget, "clean"] = report["clean"]["percent"]
        found[budget, names[row["attack"]]] = row["robust"]
    return found


def slow_cells(folder):
    """{(part, row and axes, measure, quantity): values of the finished runs}."""
    cells = {}
    for run in folder.runs.values():
        cell = dict(run.cell)
        part = cell.pop("part", "")
        for key, value in values_of(folder, run).items():
            cells.setdefault((part, tuple(cell.values()), *key), []).append(value)
    return cells


def some(run):
    return int(run.id, 16) % 4 != 0


@pytest.mark.parametrize("name", ["emoji", "table02", "table08", "table09", "eta_alpha"])
def test_cells_are_those_of_a_slow_loop(tmp_path, filled, name):
    folder = filled(tmp_path, name, which=some, seeds=[0, 1, 2])
    report = read_report(folder, "core-tuning")
    expected = slow_cells(folder)
    claims = {
        (json.dumps(claim["cell"]), json.dumps(claim["measure"])): claim
        for claim in load_sweep(name).paper
    }
    assert claims or name in ("emoji", "eta_alpha")
    seen = set()
    for part in report.parts:
        for line in part.cells.to_dict("records"):
            names = {"row": line["row"], **{axis: line[axis] for axis in part.axes}}
            cell = {key: each for key, each in names.items() if each}
            key = (part.name, tuple(cell.values()), line["measure"], line["quantity"])
            seen.add(key)
            own = expected.get(key, [])
            assert line["n"] == len(own)
            assert line["expected"] == 3
            if not own:
                assert math.isnan(line["mean"])
                continue
            summary = summarise(own)
            assert line["mean"] == pytest.approx(summary.mean, abs=1e-9)
            for column in ("standard_error", "interval"):
                value = getattr(summary, column)
                if value is None:
                    assert math.isnan(line[column])
                else:
                    assert line[column] == pytest.approx(value, abs=1e-9)
            check_paper(line, part, cell, claims)
        assert not part.values.duplicated(["id", "measure", "quantity"]).any()
    assert expected.keys() <= seen


def check_paper(line, part, cell, claims):
    cell = {**({"part": part.name} if part.name else {}), **cell}
    norm, _, eps = line["measure"].partition(" ")
    claim = claims.get((json.dumps(cell), "null")) or claims.get(
        (json.dumps(cell), json.dumps({"norm": norm, "eps": eps}))
    )
    column = {"clean": "clean", "PGD-10": "robust"}.get(line["quantity"])
    if part.command != "robust" and claim:
        (column,) = claim["values"]
    if claim is None or column is None:
        assert math.isnan(line["paper"]) and math.isnan(line["difference"])
    else:
        assert line["paper"] == claim["values"][column]
        assert line["difference"] == pytest.approx(line["mean"] - line["paper"])
        stderr = claim["stderr"]
        assert line["paper_standard_error"] == stderr or stderr is None


def test_missing_cells_are_lines_in_the_definitions_order(tmp_path, filled):
    folder = filled(tmp_path, "emoji", small=True, which=lambda run: run.cell["part"] == "ablation")
    parts = read_report(folder, "core-tuning").parts
    assert [part.name for part in parts] == ["ablation", "domains", "adversarial", "plain"]
    assert [part.axes for part in parts] == [(), ("target",), ("budget",), ()]
    rows = [choice.name for choice in read_definition("emoji").parts[0].axes["row"]]
    assert parts[0].cells["row"].tolist() == rows
    plain = parts[3].cells
    assert len(plain) == 2 * 6 * 2 and (plain["n"] == 0).all() and (plain["expected"] == 3).all()
    assert plain["quantity"].unique().tolist() == ["clean", "PGD-10"]
    assert plain["measure"].tolist()[:12:2] == [
        "l2 0.5", "l2 1.5", "l2 2.5", "linf 2/255", "linf 4/255", "linf 8/255",
    ]  # fmt: skip
    assert plain["mean"].isna().all() and plain["interval"].isna().all()
    assert len(parts[3].values) == 0
    assert [*parts[1].values.columns] == [
        "id", "seed", "row", "target", "measure", "quantity", "value",
    ]  # fmt: skip


def test_cells_without_runs_are_not_shown(tmp_path, filled):
    filled(tmp_path, "table02", only={"dataset": ["pets"]})
    folder = filled(tmp_path, "table02", only={"dataset": ["dtd"]})
    (part,) = read_report(folder, "core-tuning").parts
    assert part.cells["dataset"].tolist() == 5 * ["dtd", "pets"]


def test_leave_one_out_needs_runs_that_leave_out_pairs(tmp_path, kit, filled, define):
    """With two domains, one is validated on while the other is left out as well."""
    folder = filled(tmp_path / "sweep", define(text=PAIRS), which=lambda run: False)
    for run in folder.runs.values():
        targets = {"zero": [0], "one": [1], "both": [0, 1]}[run.cell["target"]]
        if (run.cell["target"], run.seed) == ("both", 1):
            continue
        records = [
            kit.domain_record(targets, step, test, trial=run.seed, folder=run.id, domains=2)
            for step, test in ((0, 0.8), (100, 0.9), (299, 0.7))
        ]
        # While both are left out, the first step does best on the other.
        for record, other in zip(records, (0.6, 0.5, 0.4), strict=True):
            if targets == [0, 1]:
                record.update(env0_in_acc=other, env1_in_acc=other)
        kit.write_lines(folder.run_path(run.id) / "results.jsonl", records)
        (folder.run_path(run.id) / "done").touch()
    (part,) = read_report(folder, "core-tuning").parts
    assert part.cells["target"].unique().tolist() == ["zero", "one"]
    found = part.cells.set_index(["target", "measure"])
    for target in ("zero", "one"):
        assert found.loc[(target, LEAVE_ONE_OUT), "n"] == 1
        assert found.loc[(target, LEAVE_ONE_OUT), "mean"] == pytest.approx(80)
        assert found.loc[(target, ORACLE), "n"] == 2
        assert found.loc[(target, ORACLE), "mean"] == pytest.approx(70)


def test_an_attack_that_nobody_asked_for_is_shown_too(tmp_path, kit, filled):
    folder = filled(tmp_path, "table14", seeds=[0], only={"part": ["adversarial"]})
    run = next(iter(folder.runs.values()))
    path = folder.run_path(run.id) / run.done
    path.write_text(json.dumps(kit.robust_report(80.0, [("l2", "0.5", "square", 60.0)])))
    (part,) = read_report(folder, "core-tuning").parts
    (line,) = part.cells[part.cells["quantity"] == "Square"].to_dict("records")
    assert (line["mean"], line["n"]) == (60.0, 1)


def test_validation_chooses_among_a_grid(tmp_path, filled):
    best = ("1", "10")

    def percent(run, *facts):
        chosen = (run.cell["eta"], run.cell["alpha"]) == best
        return 90.0 + run.seed if chosen and facts else 50.0 + run.seed

    folder = filled(tmp_path, "eta_alpha", percent=percent)
    report = read_report(folder, "core-tuning")
    (note,) = [note for note in report.notes if note.startswith("Validation")]
    assert "chooses eta 1, alpha 10, with 91.00% on validation images and 51.00%" in note
    assert set(report.parts[0].cells["quantity"]) == {"accuracy"}


def test_a_run_without_validation_images(tmp_path, kit, filled):
    folder = filled(tmp_path, "eta_alpha", which=lambda run: False)
    run = next(iter(folder.runs.values()))
    folder.run_path(run.id).mkdir()
    (folder.run_path(run.id) / run.done).write_text(json.dumps(kit.finetune_result(77.0)))
    report = read_report(folder, "core-tuning")
    assert report.parts[0].values["value"].tolist() == [77.0]


def test_a_folder_of_an_older_version_is_read(tmp_path, filled):
    """Its sweep.json has neither claims in the definition nor, for the oldest, an environment."""
    folder = filled(tmp_path, "table23")
    path = tmp_path / "sweep.json"
    contents = json.loads(path.read_text())
    contents["definition"] = contents["definition"].partition("[[finding]]")[0]
    del contents["environment"]
    path.write_text(json.dumps(contents))
    report = read_report(open_sweep(folder.path), "core-tuning")
    assert (report.findings, report.environment) == ((), {})
    assert report.parts[0].cells["paper"].notna().all()


def test_frames_are_of_plain_types(tmp_path, filled):
    folder = filled(tmp_path, "table05")
    (part,) = read_report(folder, "core-tuning").parts
    for column in ("mean", "standard_error", "interval", "paper", "difference"):
        assert pd.api.types.is_float_dtype(part.cells[column])
    for column in ("n", "expected"):
        assert pd.api.types.is_integer_dtype(part.cells[column])


def test_pairs_serve_runs_of_the_same_options(tmp_path, kit, filled, define):
    """Rows that differ by an option which no record of a run tells."""
    rows = """
rows = [
    { name = "a", options = { augmented_validation = false } },
    { name = "b", options = { augmented_validation = true } },
]
"""
    text = PAIRS.replace("[axes]\n", f"{rows}[axes]\n")
    folder = filled(tmp_path / "sweep", define(text=text), which=lambda run: False)
    for run in folder.runs.values():
        targets = {"zero": [0], "one": [1], "both": [0, 1]}[run.cell["target"]]
        # Row b has no pairs, and must not have a's.
        if (run.cell["row"], targets) != ("b", [0, 1]):
            records = [kit.domain_record(targets, 0, 0.8, trial=run.seed, folder=run.id, domains=2)]
            kit.write_lines(folder.run_path(run.id) / "results.jsonl", records)
            (folder.run_path(run.id) / "done").touch()
    cells = read_report(folder, "core-tuning").parts[0].cells
    found = cells[cells["measure"] == LEAVE_ONE_OUT].groupby("row")["n"].apply(list)
    assert found.to_dict() == {"a": [2, 2], "b": [0, 0]}
