"""What validation chooses among a grid: by runs of the same seeds, and of every command."""

from __future__ import annotations

import pytest

from core_tuning.sweeps.reporting.collect import read_report

DOMAINS = """\
title = "x"
command = "dg"
seeds = [0, 1]
options = { method = "ce", steps = 300 }
axes.target = [{ name = "fluent", options = { test_envs = 0 } }]
[grid]
eval_every = [50, 100]
"""
ROBUST = """\
title = "x"
command = "robust"
seeds = [0]
options = { method = "ce" }
evaluate = { attacks = ["pgd10"] }
measures = [{ norm = "l2", eps = "0.5" }, { norm = "l2", eps = "1.5" }]
[grid]
lr = [0.1, 0.3]
"""


@pytest.fixture
def chosen(tmp_path, filled):
    """The notes about validation of a sweep whose runs are so good."""

    def call(name, percent, which=lambda run: True, **options):
        folder = filled(tmp_path / "sweep", name, percent=percent, which=which, **options)
        notes = read_report(folder, "x").notes
        return [note for note in notes if "alidation" in note]

    return call


def test_settings_are_compared_by_the_same_seeds(chosen):
    """The first seed is easy, and the worse setting has no other yet."""

    def percent(run, *facts):
        return {"0.1": 70.0, "1": 71.0, "10": 60.0}[run.cell["eta"]] + (5 if run.seed == 0 else 0)

    (note,) = chosen(
        "eta_alpha", percent, lambda run: run.seed == 0 or run.cell["eta"] != "0.1",
        only={"alpha": ["1"]},
    )  # fmt: skip
    assert note == (
        "Validation chooses eta 1, alpha 1, with 76.00% on validation images and 76.00% on test "
        "images (mean of 1), among the 3 settings with finished runs; runs of seeds that not all "
        "have, which are left out: 4."
    )


def test_a_setting_without_the_seed_of_most_is_left_out(chosen):
    def which(run):
        return run.seed == (2 if run.cell["eta"] == "10" else 0)

    (note,) = chosen("eta_alpha", lambda run, *facts: 60.0 + run.seed, which, only={"alpha": ["1"]})
    assert "chooses eta 0.1, alpha 1, with 60.00%" in note
    assert "among 2 of the 3 settings with finished runs; runs" in note
    assert note.endswith("left out: 1.")


def test_robustness_is_chosen_by_the_attack_on_validation_images(chosen):
    def percent(run, *facts):
        good = run.cell["lr"] == "0.1"
        # The accuracy without an attack would choose another.
        return (60.0 if facts == ("clean",) else 40.0) + (5 if good == (facts != ("clean",)) else 0)

    notes = chosen("emoji_robustness_grid", percent)
    assert notes[:2] == [
        "CE: All accuracies are on validation images, and none on test images.",
        "CE: Validation chooses lr 0.1, with 45.00% accuracy under PGD-10 on validation images "
        "(mean of 1), among the 3 settings with finished runs.",
    ]
    assert notes[3].startswith(
        "with a contrastive loss, AT-CE-Con: Validation chooses lr 0.1, eta 0.1, with 45.00%"
    )
    assert len(notes) == 6


def test_a_grid_on_test_images_is_not_chosen_from(chosen, define, kit):
    notes = chosen(define(text=ROBUST), kit.percent)
    assert notes == ["Validation chooses nothing: no run was measured on validation images."]


def test_all_budgets_count(chosen, define):
    text = ROBUST.replace('["pgd10"]', '["pgd10"], split = "validation"')

    def percent(run, *facts):
        return {"0.1": 30.0, "0.3": 20.0}[run.cell["lr"]] + (9 if "1.5" in facts else 0)

    notes = chosen(define(text=text), percent)
    assert notes[0] == "All accuracies are on validation images, and none on test images."
    assert notes[1].startswith("Validation chooses lr 0.1, with 34.50% accuracy under PGD-10 on")


def test_domains_are_chosen_by_the_source_domains(chosen, define):
    """`finish` makes the last step the best on the source domains, with 79.9%."""
    notes = chosen(define(text=DOMAINS), lambda run, *facts: 30.0 + run.seed)
    assert notes[0] == (
        "fluent: Validation chooses eval_every 50, with 79.90% on validation images of the "
        "source domains and 30.50% on the target domain (mean of 2), among the 2 settings with "
        "finished runs."
    )
