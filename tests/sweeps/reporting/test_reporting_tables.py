"""Tables of folders that lack something: no mean of other things than its neighbours'."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from core_tuning.report.page import markdown
from core_tuning.robustness.config import Attacks
from core_tuning.sweeps.claims import DEFAULT_ATTACKS
from core_tuning.sweeps.reporting.collect import read_report
from core_tuning.sweeps.reporting.page import page_of
from core_tuning.sweeps.reporting.views import read_budget, tables_of, views_of

PACS = ["PACS, art painting", "PACS, cartoon", "PACS, photo", "PACS, sketch"]
SWITCHES = """\
title = "x"
command = "finetune"
seeds = [0]
[axes]
a = [{ name = "on", options = { lr = 0.1 } }, { name = "off", options = { lr = 0.2 } }]
b = [{ name = "on", options = { epochs = 1 } }, { name = "off", options = { epochs = 2 } }]
c = [{ name = "on", options = { batch_size = 1 } }, { name = "off", options = { batch_size = 2 } }]
"""
ROBUST = """\
title = "x"
command = "robust"
seeds = [0, 1]
rows = [
    { name = "A", options = { method = "ce" } },
    { name = "B", options = { method = "core_tuning" } },
]
axes.budget = [
    { name = "l2 128/255", options = { norm = "l2", eps = "128/255" } },
    { name = "linf 1.5/255", options = { norm = "linf", eps = "1.5/255" } },
    { name = "l2 0.50", options = { norm = "l2", eps = "0.50" } },
]
"""


def only_table(report):
    return tables_of(report.parts[0])[0]


def markdown_of(report):
    return markdown(page_of(report, {}), Path())


def test_a_row_that_lacks_a_data_set_has_no_mean_of_it(tmp_path, filled):
    filled(tmp_path, "table08", only={"row": ["CE"]}, seeds=[0])
    only = {"row": ["Core-tuning"], "target": PACS}
    table = only_table(read_report(filled(tmp_path, "table08", only=only, seeds=[0]), "x"))
    lines = {row[0]: row[1:] for row in table.rows}
    assert table.header[1:] == ["CE", "Core-tuning"]
    assert "paper 88.08" in lines["mean of PACS"][1]
    assert lines["mean of VLCS"][1] == "–" != lines["mean of VLCS"][0]


def test_a_mean_is_of_the_same_targets_in_every_row(tmp_path, filled):
    def percent(run, *facts):
        return 50.0 + (40 if "photo" in run.cell["target"] else 0)

    filled(tmp_path, "table08", only={"row": ["CE"], "target": PACS}, percent=percent)
    only = {"row": ["Core-tuning"], "target": PACS[2:]}
    folder = filled(tmp_path, "table08", only=only, percent=percent)
    table = only_table(read_report(folder, "x"))
    means = {row[0]: row[-1] for row in table.rows}
    assert means["CE"].startswith("60.00 ") and means["Core-tuning"] == "–"


def test_equal_values_of_several_axes_stay_apart(tmp_path, filled, define):
    folder = filled(tmp_path / "sweep", define(text=SWITCHES))
    table = only_table(read_report(folder, "x"))
    shown = [cell for row in table.rows for cell in row[1:]]
    assert len(shown) == 8 and all(cell.endswith(" (1)") for cell in shown)
    names = [", ".join(each) for each in itertools.product(*[("on", "off")] * 2)]
    assert table.header[1:] == names


def test_domains_without_a_finished_run_are_shown_as_missing(tmp_path, filled):
    folder = filled(tmp_path, "emoji", small=True, which=lambda run: run.cell["part"] == "ablation")
    domains = read_report(folder, "x").parts[1]
    (table,) = tables_of(domains)
    assert "training-domain validation set" in table.title
    assert {cell for row in table.rows for cell in row[1:]} == {"missing (0 of 3)"}


def test_a_fixed_number_is_named_by_its_axis(tmp_path, filled):
    part = read_report(filled(tmp_path, "eta_alpha", only={"eta": ["1"]}), "x").parts[0]
    assert tables_of(part)[0].title == "eta 1, accuracy (%)"
    assert views_of(part)[0].where == ["eta 1"]


def test_the_paper_s_number_is_of_the_budget_that_was_asked_for(tmp_path, kit, filled):
    only = {"part": ["adversarial"], "budget": ["l2 0.5"], "row": ["AT-CE"]}
    folder = filled(tmp_path, "table09", only=only, seeds=[0])
    (run,) = folder.runs.values()
    rows = [("l2", "0.5", "pgd10", 86.0), ("linf", "8/255", "pgd10", 20.0)]
    (folder.run_path(run.id) / run.done).write_text(json.dumps(kit.robust_report(92.0, rows)))
    cells = read_report(folder, "x").parts[0].cells
    printed = cells.groupby("measure", sort=False)["paper"].count()
    assert printed.to_dict() == {"l2 0.5": 2, "linf 8/255": 0}


def test_budgets_are_spelled_as_the_sweep_asked_for_them(tmp_path, kit, filled, define):
    folder = filled(tmp_path / "sweep", define(text=ROBUST), which=lambda run: False)
    written = {"l2 128/255": "0.501961", "linf 1.5/255": "1.5/255", "l2 0.50": "0.5"}
    for run in folder.runs.values():
        norm = run.cell["budget"].split()[0]
        report = kit.robust_report(80.0, [(norm, "1", "pgd10", 50.0)])
        budget = read_budget(run.cell["budget"])[1]
        report["rows"][0].update(eps=budget, eps_text=written[run.cell["budget"]])
        path = folder.run_path(run.id) / run.done
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(report))
    cells = read_report(folder, "x").parts[0].cells
    assert (cells["measure"] == cells["budget"]).all()
    measured = cells[cells["quantity"].isin(("clean", "PGD-10"))]
    assert (measured["n"] == 2).all()


def test_attacks_that_are_asked_for_by_default_are_missing(tmp_path, kit, filled, define):
    folder = filled(tmp_path / "sweep", define(text=ROBUST), which=lambda run: False)
    run = next(iter(folder.runs.values()))
    path = folder.run_path(run.id) / run.done
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(kit.robust_report(80.0, [("l2", "128/255", "pgd10", 50.0)])))
    cells = read_report(folder, "x").parts[0].cells
    first = cells[(cells["row"] == "A") & (cells["budget"] == "l2 128/255")]
    assert first["quantity"].tolist() == ["clean", "PGD-10", "PGD-50x10", "Square", "AutoAttack"]
    assert first["n"].tolist() == [1, 1, 0, 0, 0]
    assert list(DEFAULT_ATTACKS) == Attacks().attacks


@pytest.mark.parametrize("axis", ["part", "command"])
def test_axes_have_no_names_of_columns(tmp_path, filled, define, axis):
    text = f"""\
        title = "x"
        command = "finetune"
        rows = [{{ name = "CE", options = {{ method = "ce" }} }}]
        axes.{axis} = [{{ name = "a", options = {{ lr = 0.1 }} }}]
    """
    folder = filled(tmp_path / "sweep", define(text=text), which=lambda run: False)
    for run in folder.runs.values():
        run.cell.pop("part", None)
        folder.run_path(run.id).mkdir(parents=True)
        (folder.run_path(run.id) / run.done).write_text('{"test": {"top1": 50}}')
    with pytest.raises(ValueError, match=f"axis '{axis}' of mine has the name of a column"):
        read_report(folder, "x")


def test_backticks_stay_inside_of_code(tmp_path, filled):
    report = read_report(filled(tmp_path, "table23"), "core-tuning `a` ``b")
    text = markdown_of(report._replace(environment={"host": "a`b"}))
    assert "Made by ``` core-tuning `a` ``b ```." in text
    assert "- **host:** a\\`b\n" in text


def test_the_guide_says_what_the_paper_s_means_are(tmp_path, filled):
    text = markdown_of(read_report(filled(tmp_path, "table02", seeds=[0]), "x"))
    assert "the mean of the paper's numbers in them" in text
