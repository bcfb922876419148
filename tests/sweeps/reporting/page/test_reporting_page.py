"""The page holds all that the report has, as text, and refers to nothing outside of it."""

from __future__ import annotations

import base64
import math
import re
import subprocess
import sys

import pytest

from core_tuning.report.page import html, markdown
from core_tuning.sweeps.reporting.page import page_of
from core_tuning.sweeps.reporting.report import write_report
from core_tuning.sweeps.reporting.views import cell_text, draw_parts

HOSTILE = "<script>alert('a')</script> & \"b\" http://example.org"


@pytest.fixture
def page(every_kind, tmp_path):
    return html(page_of(every_kind, draw_parts(every_kind.parts, tmp_path / "figures", "mine")))


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
    page = html(page_of(report, draw_parts(report.parts, tmp_path, "mine")))
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
    assert cell_text(given) == shown


def test_tables_put_the_paper_s_number_below(page):
    assert re.search(r"<td>70\.25 ± 0\.62 \(3\)\npaper 72\.25, -2\.00</td>", page)


def test_markdown_links_the_figures(every_kind, tmp_path):
    figures = draw_parts(every_kind.parts, tmp_path / "figures", "mine")
    text = markdown(page_of(every_kind, figures), tmp_path)
    links = re.findall(r"\]\((figures/[^)]*)\)", text)
    assert len(links) == 6
    assert all((tmp_path / link).is_file() for link in links)


def test_without_maps_torch_is_not_needed():
    """A report of tables and plain figures takes no seconds to import what it does not use."""
    program = (
        "import sys, core_tuning.sweeps.reporting.page, core_tuning.sweeps.reporting.report\n"
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False", "False"]


def test_the_guide_says_what_the_paper_s_means_are(page):
    assert "the mean of the paper&#39;s numbers in them" in page


def test_no_cell_is_a_formula_to_a_spreadsheet(made_up, tmp_path):
    one = made_up.part({("=1+1", "", "accuracy"): [50.0, 51.0]}, rows=("=1+1",))
    write_report(made_up.report(one), tmp_path / "report", None)
    for name in ("table.csv", "values.csv"):
        text = (tmp_path / "report" / name).read_text()
        assert "'=1+1" in text
        assert ",=" not in text
