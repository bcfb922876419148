"""report.md says what matters to who was not there; figures are drawn without a warning."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from core_tuning.robustness.masking import Check, Checked
from core_tuning.robustness.report import (
    Report,
    accuracy_section,
    examples_section,
    verdict,
    write_report,
)
from core_tuning.robustness.rows import accuracy, bits
from core_tuning.robustness.subject import Randomness

TITLES = {"pgd10": "PGD-10 (paper protocol)", "autoattack": "AutoAttack standard"}


pytestmark = pytest.mark.usefixtures("no_warnings")


@pytest.fixture
def titled(row):
    """Make a row of 200 images."""
    return lambda attack, correct, **more: row(attack, correct, 200, title=TITLES[attack], **more)


def check(name="unbounded", flagged=False, ran=True):
    return Check(name, flagged, "found this", ran)


def checked(checks, norm="l2", eps=0.5, images=200):
    return Checked(norm, eps, images, "input", checks)


def report(rows, masking, space="input"):
    right = torch.arange(200) < 180
    return Report(
        subject={"name": "some run", "source": "runs/some", "selection": "validation split"},
        randomness=Randomness(5, 8, 0.0, 0.0),
        data={
            "dataset": "emoji_domains", "split": "test", "description": "the test split",
            "classes": ["a", "b"], "n": 200, "total": 200, "seed": 0, "warnings": [],
            "attack_space": space, "input_size": "32x32", "native_size": "4x4",
            "indices": [*range(200)],
        },
        labels=[0, 1] * 100,
        environment={"torch": "2.15.0", "core-tuning": "0.1.0"},
        clean=accuracy(right),
        clean_images=bits(right),
        rows=rows,
        masking=masking,
    )  # fmt: skip


def examples(drawn):
    generator = np.random.default_rng(0)
    clean = generator.random((3, 3, 8, 8), dtype=np.float32)
    change = 0.02 * generator.choice([-1, 1], clean.shape).astype(np.float32)
    attacked = np.clip(clean + change, 0, 1)
    return [examples_section(clean, attacked, ["a → b"] * 3, "linf eps 0.02", drawn)]


def written(tmp_path, contents, more=()):
    write_report(tmp_path, contents, more)
    return (tmp_path / "report.md").read_text()


def test_the_report_says_what_was_measured_on_what(tmp_path, titled):
    rows = [titled("pgd10", 90), titled("autoattack", 80)]
    found = checked([check()]).with_rows(rows)
    text = written(tmp_path, report(rows, [found]), examples(tmp_path / "figures"))
    first = text.split("\n\n")
    assert first[0] == "# Robustness of some run"
    assert first[1] == "No sign of masked gradients in 2 checks."
    assert "40.0% of 200 images (95% interval 33.5 to 46.9) stay right under AutoAttack" in text
    assert re.search(r"\| PGD-10 .* \| l2 \| 0.5 \| input \| 0.0625 \| 200 \| 90 \| 45.00 \|", text)
    assert "| 38.26 to 51.92 | 1.2 |" in text
    assert "| selection rule | validation split |" in text
    assert "| torch | 2.15.0 |" in text and "| seed | 0 |" in text
    assert "(200 in all)" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == 2
    for link in links:
        with Image.open(tmp_path / link) as image:
            image.load()
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 2
    assert "stay right under AutoAttack" in page


def test_flags_come_first_and_by_their_budget(tmp_path, titled):
    masking = [
        checked([check(flagged=True), check("monotone")]),
        checked([check()], "linf", 8 / 255, 50),
    ]
    lead = written(tmp_path, report([titled("pgd10", 90)], masking)).split("\n\n")[1]
    assert 'At l2 eps 0.5, on 200 images: 1 of 2 checks raises a flag, against "An attack' in lead
    assert "not to be trusted" in lead
    assert "At linf eps 8/255, on 50 images: No sign of masked gradients in 1 check." in lead


def test_a_check_that_was_not_run_counts_for_nothing():
    assert verdict([check(), check("gap", ran=False)]).endswith("in 1 check.")
    assert "not looked for" in verdict([])
    assert "not looked for" in verdict([check("gap", ran=False)])


def test_pgd_alone_is_called_an_upper_bound(tmp_path, titled):
    alone = written(tmp_path, report([titled("pgd10", 90)], [checked([check()])]))
    assert "AutoAttack was not run at l2 eps 0.5 (input pixels)" in alone
    assert "upper bound on robust accuracy" in alone
    rows = [titled("pgd10", 90), titled("autoattack", 80)]
    assert "was not run" not in written(tmp_path, report(rows, [checked([check()])]))


def test_rows_are_compared_within_their_norm(tmp_path, titled):
    rows = [titled("pgd10", 90), titled("autoattack", 60)]
    rows += [titled(name, 9, norm="linf") for name in ("pgd10", "autoattack")]
    masking = [checked([check()], norm).with_rows(rows) for norm in ("l2", "linf")]
    text = written(tmp_path, report(rows, masking))
    assert "At l2 eps 0.5, on 200 images: 1 of 2 checks raises a flag" in text
    assert "At linf eps 0.5, on 200 images: No sign of masked gradients in 2 checks" in text


def test_images_that_square_takes_beyond_gradients_are_flagged(tmp_path, titled):
    after = [["apgd-ce", 70], ["apgd-t", 66], ["fab-t", 66], ["square", 60]]
    rows = [titled("pgd10", 68), titled("autoattack", 60, after=after)]
    text = written(tmp_path, report(rows, [checked([check()]).with_rows(rows)]))
    assert '1 of 3 checks raises a flag, against "Square takes nothing' in text
    assert "| Square takes nothing that gradients left | FLAG | at most +3.0 points" in text
    assert "- **Square takes nothing that gradients left:** Square needs no gradient." in text


def test_without_checks_the_accuracies_are_called_upper_bounds(tmp_path, titled):
    text = written(tmp_path, report([titled("pgd10", 90)], []))
    assert "Masked gradients were not looked for" in text.split("\n\n")[1]


def test_the_notes_fit_the_rows(tmp_path, titled):
    inside = written(tmp_path, report([titled("pgd10", 90)], []))
    assert "The attack changes the network's input" in inside
    native = [titled("pgd10", 90, norm="linf", space="native", notes=["3 classes only"])]
    text = written(tmp_path, report(native, [], "native"))
    assert "The attack changes the network's input" not in text
    assert "| ≤ 0.0625 |" in text and "eps √(3hw)" in text and "Note: 3 classes only" in text


def test_without_rows_there_is_no_accuracy_figure(tmp_path):
    text = written(tmp_path, report([], [checked([check()])]))
    assert "robust_accuracy.png" not in text
    assert not (tmp_path / "figures" / "robust_accuracy.png").exists()


def test_accuracy_has_a_panel_for_each_norm_and_a_line_for_each_attack(tmp_path, drawn, titled):
    rows = [titled(name, 90 - 20 * k, eps=0.5 + k, eps_text=f"{0.5 + k}")
            for name in TITLES for k in range(3)]  # fmt: skip
    rows += [titled("pgd10", 50, norm="linf", eps=8 / 255, eps_text="8/255")]
    accuracy_section(report(rows, []), tmp_path)
    l2, linf = drawn[0].axes
    assert [label.get_text() for label in l2.get_xticklabels()] == ["0", "0.5", "1.5", "2.5"]
    assert [label.get_text() for label in linf.get_xticklabels()] == ["0", "8/255"]
    lines = [line for line in l2.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 2
    assert lines[0].get_ydata().tolist() == [90, 45, 35, 25]
    assert "(%)" in l2.get_ylabel() and "images in [0, 1]" in l2.get_xlabel()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [*TITLES.values()]


def test_the_difference_is_magnified_as_stated(tmp_path, drawn):
    clean = np.full((2, 3, 4, 4), 0.5)
    adversarial = clean.copy()
    adversarial[0, 0, 0, 0] += 0.04
    examples_section(clean, adversarial, ["a", "b"], "linf eps 0.04", tmp_path)
    (axes,) = drawn[0].axes
    assert axes.texts[-1].get_text() == "difference × 12,\n0 is grey"
    shown = axes.images[4].get_array()
    assert shown[0, 0, 0] == pytest.approx(0.98)
    assert shown[1, 1, 1] == 0.5


def test_equal_images_do_not_divide_by_zero(tmp_path, drawn):
    same = np.zeros((1, 3, 4, 4))
    examples_section(same, same, ["a"], "l2 eps 0", tmp_path)
    assert "× 100" in drawn[0].axes[0].texts[-1].get_text()
