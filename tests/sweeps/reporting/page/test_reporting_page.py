"""The page holds all that the report has, as text, and refers to nothing outside of it."""

from __future__ import annotations

import base64
import math
import re

import pytest

from core_tuning.sweeps.reporting.figures import write_figures
from core_tuning.sweeps.reporting.page import report_page, two_lines, write_page
from core_tuning.sweeps.reporting.writing import write_report

HOSTILE = "<script>alert('a')</script> & \"b\" http://example.org"


@pytest.fixture
def page(every_kind, tmp_path):
    write_page(every_kind, tmp_path / "sweep", tmp_path, tsne=False)
    return (tmp_path / "report.html").read_text()


def test_the_page_is_whole_and_refers_to_nothing(page, every_kind):
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")
    assert not re.search(r"https?:|//|<script|<link|url\(|@import", re.sub('src="[^"]*"', "", page))
    assert re.findall(r'(?:src|href)="([^,"]*)', page) == ["data:image/png;base64"] * 6
    assert every_kind.command in page
    for part in every_kind.parts:
        assert f"<h2>{part.name}</h2>" in page
    for shown in ("A title", "A note.", "torch", "2.9.0", "Holds here: A claim (Table 2).",
                  "CE minus CE: +1.00 points.", "Holds here: 1."):  # fmt: skip
        assert shown in page


def test_the_images_are_those_of_the_folder(page, tmp_path):
    inside = {base64.b64decode(code) for code in re.findall(r'base64,([^"]*)"', page)}
    assert inside == {path.read_bytes() for path in (tmp_path / "figures").glob("*.png")}
    assert all(re.findall(r'alt="([^"]*)"', page))


def test_a_part_without_figures_says_why(page):
    nothing = page[page.index("<h2>nothing</h2>") :]
    assert "<img" not in nothing
    assert "No figure of test accuracy, top-1 (%): nothing is finished for it." in nothing
    assert nothing.count("missing (0 of 3)") >= 6


def test_every_text_is_shown_as_it_is(made_up, tmp_path):
    part = made_up.part({(HOSTILE, "", "accuracy"): [50.0]}, name=HOSTILE, rows=(HOSTILE,))
    report = made_up.report(
        part, title=HOSTILE, command=HOSTILE, notes=(HOSTILE,), environment={HOSTILE: HOSTILE},
        findings=(made_up.finding(HOSTILE, HOSTILE, HOSTILE),),
    )  # fmt: skip
    page = report_page(report, write_figures(report, tmp_path))
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("&lt;script&gt;") >= 10


def cell(mean, interval, n, expected, paper=math.nan, error=math.nan):
    return {"mean": mean, "interval": interval, "n": n, "expected": expected, "paper": paper,
            "paper_standard_error": error}  # fmt: skip


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (cell(90, 1.5, 3, 3), "90.00 ± 1.50 (3)"),
        (cell(90, 1.5, 2, 3), "90.00 ± 1.50 (2 of 3)"),
        (cell(90, math.nan, 1, 3), "90.00 (1 of 3)"),
        (cell(math.nan, math.nan, 0, 3), "missing (0 of 3)"),
        (cell(90, 1.5, 3, 3, 91.25), "90.00 ± 1.50 (3)\npaper 91.25, -1.25"),
        (cell(90, 1.5, 3, 3, 89, 0.5), "90.00 ± 1.50 (3)\npaper 89.00 ± s.e. 0.50, +1.00"),
        (cell(math.nan, math.nan, 0, 3, 89), "missing (0 of 3)\npaper 89.00"),
    ],
)
def test_a_cell_has_interval_runs_paper_and_difference(given, shown):
    assert two_lines(given) == shown


def test_tables_put_the_paper_s_number_below(page):
    assert re.search(r"<td>70\.25 ± 0\.62 \(3\)\npaper 72\.25, -2\.00</td>", page)


def test_without_maps_torch_is_not_needed(made_up, tmp_path, monkeypatch):
    """A report of tables and plain figures takes no seconds to import what it does not use."""
    monkeypatch.setitem(__import__("sys").modules, "core_tuning.sweeps.reporting.tsne", None)
    part = made_up.part({("CE", "", "accuracy"): [50.0]}, rows=("CE",))
    write_page(made_up.report(part), tmp_path / "sweep", tmp_path, tsne=False)
    assert "t-SNE" not in (tmp_path / "report.html").read_text()


def test_the_guide_says_what_the_paper_s_means_are(page):
    assert "the mean of the paper&#x27;s numbers in them" in page


def test_no_cell_is_a_formula_to_a_spreadsheet(made_up, tmp_path):
    one = made_up.part({("=1+1", "", "accuracy"): [50.0, 51.0]}, rows=("=1+1",))
    write_report(made_up.report(one), tmp_path / "report", None)
    for name in ("table.csv", "values.csv"):
        text = (tmp_path / "report" / name).read_text()
        assert "'=1+1" in text
        assert ",=" not in text
