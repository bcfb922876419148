"""The demo's words and page, on made-up results: it says what came out, whichever way it falls."""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest

from core_tuning.algorithms import demo_report
from core_tuning.algorithms.demo_report import describe, write_report
from core_tuning.algorithms.environments import Environments

ENVIRONMENTS = Environments(
    ["ink", "oil", "wax <1>"], [], ["ant", "bee", "cow"], 32, 300, {}, [], "inks", False
)
SHIFTS = (-10, 0, 4)  # of the three targets


def record(algorithm, target, seed, step, source, test):
    accuracies = {}
    for number in range(3):
        is_target = number == target
        accuracies[f"env{number}_out_acc"] = 0.01 if is_target else source
        accuracies[f"env{number}_in_acc"] = test / 100 if is_target else 0.99
    args = {"dataset": "EmojiDomains", "algorithm": algorithm, "test_envs": [target],
            "trial_seed": seed, "hparams_seed": 0, "output_dir": "run"}  # fmt: skip
    return {"step": step, "args": args, **accuracies}


def records(**tops):
    """Two evaluations a run; source validation selects the first, which has the given accuracy."""
    return [
        line
        for algorithm, values in tops.items()
        for seed, top in enumerate(values)
        for target, shift in enumerate(SHIFTS)
        for line in (
            record(algorithm, target, seed, 99, 0.8, top + shift),
            record(algorithm, target, seed, 199, 0.7, 99.0),
        )
    ]


def test_better_and_worse():
    means = {"CE": [80, 81, 82], "CE-Con": [70, 71.2, 71.8], "Core-tuning": [84, 85.1, 85.9]}
    worse, better = describe(means)
    assert worse.startswith("CE-Con minus CE: -10.00 points, 95% interval [-10.")
    assert worse.endswith("over 3 seeds: CE-Con is worse than CE here.")
    assert better.startswith("Core-tuning minus CE: +4.00 points, 95% interval [+3.")
    assert better.endswith("Core-tuning is better than CE here.")


def test_no_difference_is_said():
    texts = describe({"CE": [80, 81, 82], "CE-Con": [81, 80, 82], "Core-tuning": [90, 70, 84]})
    assert [text.split(": ")[-1] for text in texts] == [
        "no difference between CE-Con and CE is shown here.",
        "no difference between Core-tuning and CE is shown here.",
    ]


@pytest.fixture
def report(tmp_path, monkeypatch):
    """Write a report without the encoders of trained runs."""
    drawn = []

    def maps(chosen, target, environments):
        drawn.append(target)
        points = np.random.default_rng(0).normal(size=(30, 2))
        return {name: (points, np.arange(30) % 3) for name in ("before", "CE")}

    monkeypatch.setattr(demo_report, "_feature_maps", maps)

    def write(lines):
        text = write_report(tmp_path, lines, ENVIRONMENTS, "core-tuning demo --seeds <0 & 1>")
        return text, (tmp_path / "report.html").read_text()

    write.drawn = drawn
    return write


MADE_UP = records(CETuning=[80, 81], CECon=[80, 82], CoreTuning=[83, 84.2])


def test_the_page_holds_everything(report, tmp_path):
    text, page = report(MADE_UP)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(image) for image in images] == [
        (tmp_path / "figures" / name).read_bytes() for name in ("accuracy.png", "features.png")
    ]
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    # Of each target, and of the mean over targets: 80.5 + (-10 + 0 + 4) / 3.
    assert re.findall(r"<tr><td>(CE[^<]*|Core-tuning)</td>(.*?)</tr>", page) == [
        ("CE", "<td>70.50 ± 0.50</td><td>80.50 ± 0.50</td><td>84.50 ± 0.50</td>"
         "<td>78.50 ± 0.50</td>"),
        ("CE-Con", "<td>71.00 ± 1.00</td><td>81.00 ± 1.00</td><td>85.00 ± 1.00</td>"
         "<td>79.00 ± 1.00</td>"),
        ("Core-tuning", "<td>73.60 ± 0.60</td><td>83.60 ± 0.60</td><td>87.60 ± 0.60</td>"
         "<td>81.60 ± 0.60</td>"),
    ]  # fmt: skip
    for shown in ("78.50 ± 0.50", "73.60 ± 0.60", "Core-tuning minus CE: +3.10 points"):
        assert shown in text
        assert shown in page
    assert "200 steps" in page
    assert "2 seeds a method" in page


def test_features_are_drawn_of_the_target_that_is_hardest_for_ce(report):
    report(MADE_UP)
    assert report.drawn == [0]


def test_the_page_needs_nothing_else_and_escapes(report):
    """It can be sent by mail: no other file, nothing from the network."""
    _, page = report(records(CETuning=[80], CECon=[81], CoreTuning=[82]))
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "&lt;0 &amp; 1&gt;" in page
    assert "wax &lt;1&gt;" in page
    assert "80.00 (one run)" in page


def test_no_temporary_file_is_left(report, tmp_path):
    report(MADE_UP)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures", "report.html"]
