"""report.md says what matters to who was not there; figures are drawn without a warning."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from core_tuning.robustness.figures import (
    save_examples,
    save_masking,
    save_robust_accuracy,
)
from core_tuning.robustness.masking_report import verdict
from core_tuning.robustness.measure import accuracy
from core_tuning.robustness.report import write_report
from core_tuning.training.folder import RunFolder

TITLES = {"pgd10": "PGD-10 (paper protocol)", "autoattack": "AutoAttack standard"}


pytestmark = pytest.mark.usefixtures("no_warnings")


def row(attack, correct, norm="l2", eps=0.5, eps_text="0.5", space="input", **more):
    return {
        "attack": attack, "title": TITLES[attack], "norm": norm, "eps": eps, "eps_text": eps_text,
        "space": space, **accuracy(correct, 200)._asdict(), "zero_gradients": 0.012,
        "largest_l2_native": 0.0625, "notes": [], "warnings": [], "seed": 3, **more,
    }  # fmt: skip


def check(name="unbounded", flagged=False, points=(("eps 1", 0.0),), title="An attack wins"):
    return {
        "name": name, "title": title, "flagged": flagged, "value": "found this",
        "expected": "at most 1%", "points": [list(point) for point in points],
    }  # fmt: skip


def report(rows, checks, **group):
    group = {"norm": "l2", "eps": 0.5, "images": 200, **group}
    return {
        "subject": {"name": "some run", "selected_on": "validation split"},
        "data": {"dataset": "emoji_domains", "split": "test", "n": 200, "indices": [*range(200)]},
        "environment": {"torch": "2.15.0", "core-tuning": "0.1.0"},
        "clean": {**accuracy(180, 200)._asdict(), "space": "input"},
        "rows": rows,
        "masking": [{**group, "checks": checks}],
    }


def examples():
    generator = np.random.default_rng(0)
    clean = generator.random((3, 3, 8, 8), dtype=np.float32)
    change = 0.02 * generator.choice([-1, 1], clean.shape).astype(np.float32)
    return {
        "clean": clean, "adversarial": np.clip(clean + change, 0, 1), "titles": ["a → b"] * 3,
        "norm": "linf", "eps": 0.02,
    }  # fmt: skip


def written(tmp_path, contents, **options):
    write_report(RunFolder(tmp_path), contents, **options)
    return (tmp_path / "report.md").read_text()


def test_the_report_says_what_was_measured_on_what(tmp_path):
    rows = [row("pgd10", 90), row("autoattack", 80)]
    text = written(tmp_path, report(rows, [check()]), examples=examples())
    first = text.split("\n\n")
    assert first[0] == "# Robustness of some run"
    assert first[1] == "No sign of masked gradients in 2 checks."
    assert "40.0% of 200 images (95% interval 33.5 to 46.9) stay right under AutoAttack" in text
    assert re.search(r"\| PGD-10 .* \| l2 \| 0.5 \| input \| 0.0625 \| 200 \| 90 \| 45.00 \|", text)
    assert "| 38.26 to 51.92 | 1.2 |" in text
    assert "| model selected on | validation split |" in text
    assert "| torch | 2.15.0 |" in text and "| seed | 3 |" in text
    assert "(200 in all)" in text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) == 3
    for link in links:
        with Image.open(tmp_path / link) as image:
            image.load()
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64") == 3
    assert "stay right under AutoAttack" in page


def test_flags_come_first_and_by_their_budget(tmp_path):
    contents = report([row("pgd10", 90)], [check(flagged=True), check("monotone", title="Falls")])
    contents["masking"].append(
        {"norm": "linf", "eps": 8 / 255, "images": 50, "checks": [check(title="Sound")]}
    )
    lead = written(tmp_path, contents).split("\n\n")[1]
    assert 'At l2 eps 0.5, on 200 images: 1 of 2 checks raises a flag, against "An attack' in lead
    assert "not to be trusted" in lead
    assert "At linf eps 8/255, on 50 images: No sign of masked gradients in 1 checks." in lead
    assert (tmp_path / "figures" / "masking_2.png").exists()


def test_a_check_that_was_not_run_counts_for_nothing():
    assert verdict([check(), check("gap", points=())]).endswith("in 1 checks.")
    assert "not looked for" in verdict([])
    assert "not looked for" in verdict([check("gap", points=())])


def test_pgd_alone_is_called_an_upper_bound(tmp_path):
    alone = written(tmp_path, report([row("pgd10", 90)], [check()]))
    assert "AutoAttack was not run at l2 eps 0.5 (input)" in alone
    assert "upper bound on robust accuracy" in alone
    both = written(tmp_path, report([row("pgd10", 90), row("autoattack", 80)], [check()]))
    assert "was not run" not in both


def test_a_gap_to_autoattack_is_flagged_in_the_report(tmp_path):
    rows = [row("pgd10", 90), row("autoattack", 60)]
    assert "1 of 2 checks raises a flag" in written(tmp_path, report(rows, [check()]))
    other_norm = [
        row(name, right, norm="linf") for name, right in (("pgd10", 9), ("autoattack", 9))
    ]
    text = written(tmp_path, report([*rows, *other_norm], [check()], norm="linf"))
    assert "No sign of masked gradients in 2 checks" in text


def test_a_gap_that_is_there_is_not_added_again(tmp_path):
    text = written(tmp_path, report([row("pgd10", 90)], [check(), check("gap", title="Gap")]))
    assert "in 2 checks" in text and "not run: no budget has both PGD-10" not in text


def test_images_that_square_takes_beyond_gradients_are_flagged(tmp_path):
    after = [["apgd-ce", 70], ["apgd-t", 66], ["fab-t", 66], ["square", 60]]
    rows = [row("pgd10", 68), row("autoattack", 60, after=after)]
    text = written(tmp_path, report(rows, [check()]))
    assert '1 of 3 checks raises a flag, against "Square takes nothing' in text
    assert "| Square takes nothing that gradients left | FLAG | at most +3.0 points" in text
    assert "- **Square takes nothing that gradients left:** Square needs no gradient." in text


def test_checks_without_a_budget_and_none_at_all(tmp_path):
    contents = report([row("pgd10", 90)], [])
    contents["masking"] = [check(), check("monotone", title="Falls")]
    assert "No sign of masked gradients in 2 checks." in written(tmp_path, contents)
    contents["masking"] = []
    assert "Masked gradients were not looked for" in written(tmp_path, contents)


def test_the_notes_fit_the_rows(tmp_path):
    inside = written(tmp_path, report([row("pgd10", 90)], [check()]))
    assert "The attack changes the network's input" in inside
    native = [row("pgd10", 90, norm="linf", space="native", notes=["3 classes only"])]
    text = written(tmp_path, report(native, [check()]))
    assert "The attack changes the network's input" not in text
    assert "| ≤ 0.0625 |" in text and "eps √(3hw)" in text and "Note: 3 classes only" in text


def test_without_rows_there_is_no_accuracy_figure(tmp_path):
    text = written(tmp_path, report([], [check()]))
    assert "robust_accuracy.png" not in text
    assert not (tmp_path / "figures" / "robust_accuracy.png").exists()


def test_accuracy_has_a_panel_for_each_norm_and_a_line_for_each_attack(tmp_path, drawn):
    rows = [row(name, 90 - 20 * k, eps=0.5 + k, eps_text=f"{0.5 + k}")
            for name in TITLES for k in range(3)]  # fmt: skip
    rows += [row("pgd10", 50, norm="linf", eps=8 / 255, eps_text="8/255")]
    save_robust_accuracy(rows, accuracy(180, 200)._asdict(), tmp_path / "a.png")
    l2, linf = drawn[0].axes
    assert [label.get_text() for label in l2.get_xticklabels()] == ["0", "0.5", "1.5", "2.5"]
    assert [label.get_text() for label in linf.get_xticklabels()] == ["0", "8/255"]
    lines = [line for line in l2.lines if len(line.get_xdata()) == 4]
    assert len(lines) == 2
    assert lines[0].get_ydata().tolist() == [90, 45, 35, 25]
    assert "(%)" in l2.get_ylabel() and "images in [0, 1]" in l2.get_xlabel()
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == [*TITLES.values()]
    with pytest.raises(ValueError, match="no rows"):
        save_robust_accuracy([], accuracy(1, 2)._asdict(), tmp_path / "b.png")


def test_the_masking_figure_marks_flags_in_words(tmp_path, drawn):
    checks = [check(), check("monotone", True, [(0.0, 90.0), (0.5, 95.0)], "Falls"),
              check("gap", points=()), check("margin"), check("effort")]  # fmt: skip
    save_masking(checks, tmp_path / "masking.png")
    assert len(drawn[0].axes) == 5
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert titles[1] == "FLAG: Falls" and titles[0] == "An attack wins"
    assert [text.get_text() for text in drawn[0].axes[2].texts] == ["not run"]


def test_the_difference_is_magnified_as_stated(tmp_path, drawn):
    clean = np.full((2, 3, 4, 4), 0.5)
    adversarial = clean.copy()
    adversarial[0, 0, 0, 0] += 0.04
    save_examples(clean, adversarial, ["a", "b"], "linf eps 0.04", tmp_path / "examples.png")
    last = drawn[0].axes[4]
    assert last.get_ylabel() == "difference × 12,\n0 is grey"
    shown = last.images[0].get_array()
    assert shown[0, 0, 0] == pytest.approx(0.98)
    assert shown[1, 1, 1] == 0.5


def test_equal_images_do_not_divide_by_zero(tmp_path, drawn):
    same = np.zeros((1, 3, 4, 4))
    save_examples(same, same, ["a"], "l2 eps 0", tmp_path / "examples.png")
    assert "× 100" in drawn[0].axes[2].get_ylabel()
