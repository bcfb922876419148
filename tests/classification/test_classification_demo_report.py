"""The demo's words and page, on made-up results: it says what came out, whichever way it falls."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
from core_tuning.classification import demo_report
from core_tuning.classification.demo_report import describe, write_report
from core_tuning.classification.summary import summarise


def run(top1, seed=0):
    return {
        "test": {"top1": top1, "mean_per_class": top1 - 1, "images": 821},
        "seed": seed, "split": "all domains <25%>", "steps": 420, "seconds": 90.0,
    }  # fmt: skip


def results(ce, ce_con, core_tuning):
    methods = {"ce": ce, "ce_con": ce_con, "core_tuning": core_tuning}
    return {name: [run(top1) for top1 in values] for name, values in methods.items()}


def test_summary_by_hand():
    """Student's t of 2 degrees of freedom at 97.5% is 4.3027."""
    summary = summarise([1.0, 2.0, 6.0])
    error = (7 / 3) ** 0.5
    assert summary.mean == pytest.approx(3)
    assert summary.standard_error == pytest.approx(error)
    assert summary.interval == pytest.approx(4.3027 * error, rel=1e-4)
    assert str(summary) == "3.00 ± 1.53"
    single = summarise([5.0])
    assert (single.standard_error, single.interval, single.runs) == (None, None, 1)
    assert str(single) == "5.00 (one run)"


def test_better_and_worse():
    worse, better = describe(results([80, 81, 82], [70, 71.2, 71.8], [84, 85.1, 85.9]))
    assert worse.startswith("CE-Con minus CE: -10.00 points, 95% interval [-10.")
    assert worse.endswith("over 3 seeds: CE-Con is worse than CE here.")
    assert better.startswith("Core-tuning minus CE: +4.00 points, 95% interval [+3.")
    assert better.endswith("Core-tuning is better than CE here.")


def test_no_difference_is_said():
    texts = describe(results([80, 81, 82], [81, 80, 82], [90, 70, 84]))
    assert [text.split(": ")[-1] for text in texts] == [
        "no difference between CE-Con and CE is shown here.",
        "no difference between Core-tuning and CE is shown here.",
    ]


def test_differences_are_taken_seed_by_seed():
    """The seeds differ by far more than the methods, which the interval must not show."""
    _, text = describe(results([60, 80, 95], [60, 80, 95], [61, 81.1, 95.9]))
    assert "+1.00 points" in text
    assert text.endswith("Core-tuning is better than CE here.")


def test_one_seed_is_too_few():
    texts = describe(results([80], [81], [79.5]))
    assert texts == [
        "CE-Con minus CE: +1.00 points with one seed, too few to judge.",
        "Core-tuning minus CE: -0.50 points with one seed, too few to judge.",
    ]


def test_seeds_must_match():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        describe(results([80, 81], [80], [80, 81]))


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Write a report without the encoders of three trained runs."""

    def maps(folders):
        points = np.random.default_rng(0).normal(size=(30, 2))
        panels = {name: (points, np.arange(30) % 3) for name in ("before", *folders)}
        return panels, ["ant", "bee", "cicada"]

    monkeypatch.setattr(demo_report, "_feature_maps", maps)

    def write(made_up):
        folders = {name: tmp_path / name for name in made_up}
        text = write_report(tmp_path, made_up, folders, "core-tuning demo --seeds <0 & 1>")
        return text, (tmp_path / "report.html").read_text()

    return write


def test_the_page_holds_everything(report, tmp_path):
    text, page = report(results([80, 81], [80, 82], [83, 84.2]))
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(image) for image in images] == [
        (tmp_path / "figures" / name).read_bytes() for name in ("accuracy.png", "features.png")
    ]
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    assert re.findall(r"<tr><td>([^<]+)</td><td>([^<]+)</td>", page) == [
        ("CE", "80.50 ± 0.50"), ("CE-Con", "81.00 ± 1.00"), ("Core-tuning", "83.60 ± 0.60"),
    ]  # fmt: skip
    for shown in ("80.50 ± 0.50", "79.50 ± 0.50", "Core-tuning minus CE: +3.10 points"):
        assert shown in text
        assert shown in page
    assert "420 steps" in page
    assert "821 test images" in page
    assert "9.0 minutes" in page


def test_the_page_needs_nothing_else_and_escapes(report):
    """It can be sent by mail: no other file, nothing from the network."""
    _, page = report(results([80], [81], [82]))
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "&lt;0 &amp; 1&gt;" in page
    assert "all domains &lt;25%&gt;" in page
    assert "80.00 (one run)" in page


def test_no_temporary_file_is_left(report, tmp_path):
    report(results([80], [81], [82]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "report.html"]
