"""Tables of adversarially fine-tuned runs, from written reports."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent.parent / "tools" / "robust_table.py"
CLEAN = {"ce": 60, "core_tuning": 64}
# Under AutoAttack, by method, eps and seed.
ROBUST = {
    ("ce", "4/255"): (40, 42),
    ("ce", "8/255"): (20, 24),
    ("core_tuning", "4/255"): (43, 47),
    ("core_tuning", "8/255"): (19, 21),
}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("robust_table", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def line(title, eps, robust):
    return {"norm": "linf", "eps_text": eps, "title": title, "robust": robust}


@pytest.fixture
def write(tmp_path):
    def write(name, method, seed, rows, eps=None, clean=60, **more):
        subject = {"method": method, "seed": seed, **more}
        if eps:
            subject["adversarial"] = {"norm": "linf", "eps_text": eps}
        folder = tmp_path / name
        (folder / "robustness").mkdir(parents=True)
        report = {"subject": subject, "clean": {"percent": clean}, "rows": rows}
        (folder / "robustness" / "report.json").write_text(json.dumps(report))
        return folder

    return write


@pytest.fixture
def runs(write):
    folders = [
        write(
            f"{method}{eps[0]}{seed}", method, seed, eps=eps, clean=CLEAN[method] + seed,
            rows=[line("PGD-10", eps, value + 5), line("AutoAttack", eps, value)],
        )
        for (method, eps), values in ROBUST.items()
        for seed, value in enumerate(values)
    ]  # fmt: skip
    plain = [line("AutoAttack", "4/255", 1), line("AutoAttack", "8/255", 0)]
    return [*folders, write("plain", "ce", 0, plain, clean=70)]


def cells(text, start):
    (found,) = [each for each in text.splitlines() if each.startswith(start)]
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_differences_are_taken_seed_by_seed(tool, runs):
    text = tool.table(tool.read(runs))
    head = ["budget", "method", "clean", "PGD-10", "AutoAttack", "clean minus AT-CE",
            "AutoAttack minus AT-CE", "seeds"]  # fmt: skip
    assert cells(text, "| budget") == head
    # 12.706 standard errors for two seeds.
    row = cells(text, "| linf 4/255 | AT-Core-tuning")
    assert row[2:5] == ["64.50 ± 6.35", "50.00 ± 25.41", "45.00 ± 25.41"]
    assert row[5:] == ["+4.00 ± 0.00", "+4.00 ± 12.71", "2"]
    assert cells(text, "| linf 4/255 | AT-CE |")[5:] == ["", "", "2"]
    assert cells(text, "| linf 8/255 | CE |")[2:5] == ["70.00", "-", "0.00"]


def test_the_mean_over_the_budgets_is_of_each_seed(tool, runs):
    said = tool.overall(tool.read(runs), "AutoAttack")
    # Seed 0: (3 - 1) / 2, seed 1: (5 - 3) / 2.
    wanted = "- AT-Core-tuning minus AT-CE, AutoAttack, mean of 2 budgets: +1.00 ± 0.00 (2 seeds)"
    assert said == wanted


def test_a_budget_that_was_not_trained_for_is_left_out(tool, write):
    rows = [line("AutoAttack", "4/255", 30), line("AutoAttack", "8/255", 10)]
    found = tool.read([write("one", "ce", 0, rows, eps="4/255", variant="released")])
    assert {place.budget for place in found} == {"linf 4/255"}
    assert {place.method for place in found} == {"AT-CE, released"}


def test_runs_that_differ_by_other_options_are_not_mixed(tool, write):
    rows = [line("AutoAttack", "4/255", 30)]
    folders = [write(name, "ce", 0, rows, eps="4/255") for name in ("one", "two")]
    with pytest.raises(SystemExit, match="two is a second run of AT-CE, linf 4/255, seed 0"):
        tool.read(folders)


def test_runs_without_a_report_are_named(tool, tmp_path, capsys):
    (tmp_path / "half").mkdir()
    assert tool.read([tmp_path / "half"]) == {}
    assert "half is not evaluated and left out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        tool.main([str(tmp_path / "half")])
    assert "none of the folders is an evaluated run" in capsys.readouterr().err


def test_the_figure_has_a_panel_a_budget_and_a_point_a_run(tool, runs, drawn, tmp_path, capsys):
    tool.main([*map(str, runs), "--figure", str(tmp_path / "figure.png")])
    (figure,) = drawn
    shown = {
        axes.get_title(): {
            line.get_label(): sorted(zip(*line.get_data(), strict=True)) for line in axes.lines
        }
        for axes in figure.axes
    }
    assert shown == {
        "linf 4/255": {"CE": [(70, 1)], "AT-CE": [(60, 40), (61, 42)],
                       "AT-Core-tuning": [(64, 43), (65, 47)]},
        "linf 8/255": {"CE": [(70, 0)], "AT-CE": [(60, 20), (61, 24)],
                       "AT-Core-tuning": [(64, 19), (65, 21)]},
    }  # fmt: skip
    assert figure.axes[0].get_ylabel() == "accuracy under AutoAttack (%)"
    assert "mean of 2 budgets" in capsys.readouterr().out
