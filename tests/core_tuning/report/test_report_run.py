"""A run's report.html: curves, confusion, the accuracy of each class, the worst images."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from core_tuning.report import RUN_FILES
from core_tuning.report.run import WorstImages, write_run_report
from core_tuning.training.evaluate import Evaluation

pytestmark = pytest.mark.usefixtures("no_warnings")

METRICS = [
    {"step": step, "train": {"loss": 2 / step, "top1": 50.0, "eps": 0.1},
     "validation": {"top1": 40.0 + step, "images": 9}}
    for step in (10, 20)
] + [{"step": 30, "train": {"loss": 0.1, "top1": 60.0}}]  # fmt: skip


def evaluation(classes=3, images=200):
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(classes - 1, (images,), generator=generator)
    predicted = torch.randint(classes, (images,), generator=generator)
    predicted = torch.where(torch.rand(images, generator=generator) < 0.5, true, predicted)
    return Evaluation(true, predicted, torch.ones(images), classes, 1.0), true, predicted


def write(folder, **changes):
    given = {
        "title": "CE on x, seed 0", "command": "core-tuning finetune --a <b>",
        "facts": {"method": "ce", "test top-1 (%)": 51.2}, "metrics": METRICS,
        "test": evaluation()[0], "classes": [f"class {i}" for i in range(3)],
    }  # fmt: skip
    write_run_report(folder, **{**given, **changes})
    return (folder / "report.html").read_text()


def test_everything_is_on_the_page(tmp_path, drawn):
    images = np.zeros((7, 8, 8, 3), dtype=np.uint8)
    worst = WorstImages(images, [0] * 7, [1] * 7, [0.9] * 7)
    page = write(tmp_path, worst=worst)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")} == {*RUN_FILES}
    for shown in ("CE on x, seed 0", "core-tuning finetune --a &lt;b&gt;", "test top-1 (%)", "51.2",
                  "Curves", "Confusion", "Accuracy of each class", "Worst images"):  # fmt: skip
        assert shown in page
    assert page.count("data:image/png;base64") == 4
    curves, _, bars, grid = drawn
    lines = {line.get_label(): line.get_xydata().tolist() for line in curves.axes[1].lines}
    assert lines == {
        "train top1": [[10, 50], [20, 50], [30, 60]], "validation top1": [[10, 50], [20, 60]],
    }  # fmt: skip
    assert [line.get_label() for line in curves.axes[0].lines] == ["train loss"]
    titles = [text.get_text() for text in grid.axes[0].texts]
    assert [title for title in titles if title] == ["class 0 → class 1\n90%"] * 7
    # The class without images has no bar, and the worst is above.
    widths = [bar.get_width() for bar in bars.axes[0].patches]
    assert len(widths) == 2 and widths == sorted(widths)


def test_tables_hold_what_a_slow_loop_counts(tmp_path):
    _, true, predicted = evaluation()
    write(tmp_path)
    header, *rows = csv.reader((tmp_path / "confusion.csv").read_text().splitlines())
    assert header == ["true \\ predicted", "class 0", "class 1", "class 2"]
    for i, (_, *counts) in enumerate(rows):
        for j, count in enumerate(counts):
            assert int(count) == sum(
                a == i and b == j for a, b in zip(true.tolist(), predicted.tolist(), strict=True)
            )
    _, *rows = csv.reader((tmp_path / "classes.csv").read_text().splitlines())
    for i, (_, images, right, percent) in enumerate(rows):
        assert int(images) == int((true == i).sum())
        assert int(right) == int(((true == i) & (predicted == i)).sum())
        assert percent == (f"{100 * int(right) / int(images):.2f}" if int(images) else "")


def test_a_run_without_a_measurement_has_its_curves(tmp_path):
    page = write(tmp_path, test=None)
    assert "Curves" in page and "Confusion" not in page
    assert not (tmp_path / "confusion.csv").exists()


def test_a_class_that_looks_like_a_formula_is_harmless(tmp_path):
    write(tmp_path, classes=["=1+1", "b", "c"])
    for name in ("confusion.csv", "classes.csv"):
        assert "'=1+1" in (tmp_path / name).read_text()


def test_ten_thousand_classes_take_little_memory_and_no_pandas(tmp_path):
    """Beyond what importing torch takes, in a process of its own."""
    program = f"""
import resource, json, sys, torch
from pathlib import Path
from core_tuning.training.evaluate import Evaluation
true = torch.arange(10_000).repeat_interleave(5)
predicted = true.roll(2)
test = Evaluation(true, predicted, torch.ones(len(true)), 10_000, 1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from core_tuning.report.run import write_run_report
write_run_report(Path({str(tmp_path)!r}), title="t", command="c", facts={{}}, metrics=[], test=test,
                 classes=[f"class {{i}}" for i in range(10_000)])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([after - before, [name in sys.modules for name in ("pandas", "scipy")]]))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    kib, imported = json.loads(run.stdout)
    assert kib < 300 * 1024
    assert imported == [False, False]
    page = (tmp_path / "report.html").read_text()
    assert "the 40 of 10000 classes with the most wrong images" in page
    header = (tmp_path / "confusion.csv").read_text().partition("\n")[0]
    assert header == "true,predicted,images"
