"""Figures of a report: of the right kind and data, with what is missing said to be missing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from core_tuning.report.figures import MARKERS, PAPER
from core_tuning.sweeps.reporting.views import draw_parts, numbers, views_of

RULE = "training-domain validation set"
# Student's t at 97.5% and two degrees of freedom.
STUDENT = 4.3027


def texts(axes):
    return [text.get_text() for text in axes.texts]


def means(axes):
    """(x, y) of the large markers."""
    lines = [
        line
        for line in axes.lines
        if line.get_marker() in tuple(MARKERS) and line.get_markersize() > 5
    ]
    return [tuple(line.get_xydata()[0]) for line in lines]


def papers(axes):
    return [line.get_ydata()[0] for line in axes.lines if line.get_gid() == PAPER]


def across(axes):
    """The paper's values where accuracies are on the x axis."""
    return [line.get_xdata()[0] for line in axes.lines if line.get_gid() == PAPER]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def write(report, tmp_path):
    figures = draw_parts(report.parts, tmp_path / "figures", report.name)
    drawings = [drawing for made in figures.values() for drawing in made.drawn]
    assert {drawing.path for drawing in drawings} == set((tmp_path / "figures").glob("*"))
    for drawing in drawings:
        with Image.open(drawing.path) as image:
            assert image.format == "PNG"
    return figures


def test_groups_are_of_data_sets_with_the_paper_s_values(made_up, drawn, tmp_path):
    part = made_up.part(
        {("CE", "pets", "", "accuracy"): [80.0, 81.0, 85.0],
         ("Core-tuning", "pets", "", "accuracy"): [90.0],
         ("CE", "cars", "", "accuracy"): [70.0, 71.0]},
        rows=("CE", "Core-tuning"), axes={"dataset": ("pets", "cars")},
        paper={("CE", "pets", "", "accuracy"): 82.5, ("Core-tuning", "cars", "", "accuracy"): 93.5},
    )  # fmt: skip
    made = write(made_up.report(part), tmp_path)[""]
    (figure,) = drawn
    (axes,) = figure.axes
    assert [x for x, _ in means(axes)] == [82, 90, 70.5]
    assert across(axes) == [82.5, 93.5]
    assert texts(axes) == ["missing"]
    assert ticks(axes.yaxis) == ["pets", "cars"]
    assert axes.get_xlabel() == "test accuracy, top-1 (%)"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["CE", "Core-tuning", "the paper's value"]
    (drawing,) = made.drawn
    assert "Without a finished run: 1 of 4 cells." in drawing.caption
    assert "a black dash is the paper's value" in drawing.caption
    assert drawing.description.endswith("CE; Core-tuning; pets; cars")
    assert made.left_out == []


def test_domains_have_a_figure_for_each_rule(made_up, drawn, tmp_path):
    rules = (RULE, "test-domain validation set (oracle)")
    values = {("CE", target, rule, "accuracy"): [60.0 + i, 62.0 + i]
              for i, rule in enumerate(rules) for target in ("art", "photo")}  # fmt: skip
    part = made_up.part(values, command="dg", rows=("CE",), axes={"target": ("art", "photo")},
                        measures=(*rules, "leave-one-domain-out"))  # fmt: skip
    made = write(made_up.report(part), tmp_path)[""]
    counts = [each.caption.count(rule) for each, rule in zip(made.drawn, rules, strict=True)]
    assert counts == [1, 1]
    for figure, mean in zip(drawn, (61, 62), strict=True):
        axes = figure.axes[0]
        assert [x for x, _ in means(axes)] == [mean, mean]
        assert axes.get_ylabel().split() == [
            "target",
            "domain,",
            "which",
            "was",
            "not",
            "trained",
            "on",
        ]
    assert len(made.left_out) == 1
    assert "leave-one-domain-out: nothing is finished for it" in made.left_out[0]


def test_a_heat_map_prints_value_interval_and_n(made_up, drawn, tmp_path):
    part = made_up.part(
        {("", "0.1", "1", "", "accuracy"): [60.0, 61.0, 65.0],
         ("", "10", "1", "", "accuracy"): [70.0],
         ("", "10", "5", "", "accuracy"): [71.0, 71.0, 71.0]},
        axes={"eta": ("0.1", "10"), "alpha": ("1", "5")},
    )  # fmt: skip
    made = write(made_up.report(part), tmp_path)[""]
    axes = drawn[0].axes[0]
    shown = np.ma.filled(axes.images[0].get_array(), math.nan)
    assert np.array_equal(shown, [[62, math.nan], [70, 71]], equal_nan=True)
    half = STUDENT * math.sqrt(7 / 3)
    assert texts(axes) == [
        f"62.00\n± {half:.2f}\n(3)", "missing\n(0 of 3)", "70.00\n(1 of 3)", "71.00\n± 0.00\n(3)",
    ]  # fmt: skip
    (hatched,) = axes.patches
    assert hatched.get_hatch()
    assert (hatched.get_x() + 0.5, hatched.get_y() + 0.5) == (1, 0)
    assert (ticks(axes.xaxis), ticks(axes.yaxis)) == (["1", "5"], ["0.1", "10"])
    assert "weight of the contrastive loss" in axes.get_ylabel()
    assert drawn[0].axes[1].get_ylabel() == "test accuracy, top-1 (%)"
    assert "Without a finished run: 1 of 4 cells." in made.drawn[0].caption


def test_rows_with_two_numeric_axes_have_a_heat_map_each(made_up, drawn, tmp_path):
    axes = {"lr": ("0.03", "0.1"), "eta": ("0.1", "1")}
    values = {
        ("AT-CE", lr, eta, "linf 4/255", quantity): [50.0]
        for lr in axes["lr"]
        for eta in axes["eta"]
        for quantity in ("clean", "PGD-10")
    }
    part = made_up.part(values, command="robust", rows=("AT-CE", "AT-CE-Con"), axes=axes,
                        measures=("linf 4/255",), quantities=("clean", "PGD-10"))  # fmt: skip
    write(made_up.report(part), tmp_path)
    assert [figure.axes[0].get_title() for figure in drawn] == ["AT-CE", "AT-CE"]
    labels = [figure.axes[1].get_ylabel() for figure in drawn]
    assert labels == ["accuracy without an attack (%)", "accuracy under PGD-10 (%)"]


def test_numbers_are_a_line_with_a_gap_where_one_is_missing(made_up, drawn, tmp_path):
    values = {("", tau, "", "accuracy"): [60.0, 64.0] for tau in ("0.01", "0.07", "1")}
    part = made_up.part(values, axes={"temperature": ("0.01", "0.07", "0.1", "1")}, seeds=2)
    write(made_up.report(part), tmp_path)
    (axes,) = drawn[0].axes
    assert ticks(axes.xaxis) == ["0.01", "0.07", "0.1", "1"]
    assert texts(axes) == ["missing"]
    assert means(axes) == [(pytest.approx(math.log10(x)), 62) for x in (0.01, 0.07, 1)]
    (line,) = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert np.isnan(line.get_ydata()).tolist() == [False, False, True, False]


def test_domains_with_numbers_as_names_are_still_groups(made_up, drawn, tmp_path):
    axes = {"target": ("location 38", "location 43")}
    values = {("CE", name, RULE, "accuracy"): [50.0] for name in axes["target"]}
    part = made_up.part(values, command="dg", rows=("CE",), axes=axes, measures=(RULE,))
    write(made_up.report(part), tmp_path)
    assert ticks(drawn[0].axes[0].yaxis) == ["location 38", "location 43"]


def test_words_before_numbers_are_panels(made_up, drawn, tmp_path):
    names = ("dim 64", "dim 256", "depth 1", "depth 3")
    values = {("", name, "", "accuracy"): [60.0 + i] for i, name in enumerate(names)}
    write(made_up.report(made_up.part(values, axes={"projection": names})), tmp_path)
    assert [axes.get_xlabel() for axes in drawn[0].axes] == [
        "projection_dim: width of the contrastive features",
        "projection_depth: layers of the projection head, 1 to 5",
    ]  # fmt: skip
    assert [ticks(axes.xaxis) for axes in drawn[0].axes] == [["64", "256"], ["1", "3"]]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["0.1", "1e-3"], {"": [(0.1, "0.1"), (0.001, "1e-3")]}),
        (["a 1", "a 2"], {"a": [(1, "a 1"), (2, "a 2")]}),
        (["cifar10", "cifar100"], None),
        (["10%", "25%"], None),
        (["a 1", "b 2"], None),
        (["data set 1", "data set 2"], None),
        (["1", "CE"], None),
    ],
)
def test_numbers_are_read_of_names(names, found):
    assert numbers(names) == found


def test_names_are_rows_of_points(made_up, drawn, tmp_path):
    part = made_up.part(
        {("CE", "", "accuracy"): [60.0, 61.0, 65.0]}, rows=("CE", "CE, smooth"),
        paper={("CE", "", "accuracy"): 63.5},
    )  # fmt: skip
    write(made_up.report(part), tmp_path)
    (axes,) = drawn[0].axes
    assert ticks(axes.yaxis) == ["CE", "CE, smooth"]
    assert [x for x, _ in means(axes)] == [62]
    assert [line.get_xdata()[0] for line in axes.lines if line.get_gid() == PAPER] == [63.5]
    assert texts(axes) == ["missing"]


def test_intervals_of_few_runs_do_not_squeeze_the_rest(made_up, drawn, tmp_path):
    part = made_up.part({("CE", "", "accuracy"): [30.0, 80.0], ("B", "", "accuracy"): [50.0]},
                        rows=("CE", "B"))  # fmt: skip
    write(made_up.report(part), tmp_path)
    low, high = drawn[0].axes[0].get_xlim()
    assert -5 <= low < high <= 105


def test_robustness_is_against_eps_with_a_panel_for_attack_and_norm(made_up, drawn, tmp_path):
    budgets = ("l2 0.5", "l2 1.5", "linf 4/255")
    axes = {"dataset": ("cifar10",), "budget": budgets}
    trained = {("AT-CE", "cifar10", budget, budget, quantity): [value - i, value - i + 2]
               for i, budget in enumerate(budgets)
               for quantity, value in (("clean", 90.0), ("PGD-10", 50.0))}  # fmt: skip
    adversarial = made_up.part(
        trained, name="adversarial", command="robust", rows=("AT-CE",), axes=axes,
        measures=budgets, quantities=("clean", "PGD-10"),
    )  # fmt: skip
    # A model that is trained for a budget is measured at no other.
    own = adversarial.cells["budget"] == adversarial.cells["measure"]
    adversarial = adversarial._replace(cells=adversarial.cells[own].reset_index(drop=True))
    plain = made_up.part(
        {("CE", "cifar10", "l2 0.5", "PGD-10"): [10.0]}, name="plain", command="robust",
        rows=("CE",), axes={"dataset": ("cifar10",)}, measures=budgets, quantities=("PGD-10",),
        paper={("CE", "cifar10", "l2 1.5", "PGD-10"): 4.5},
    )  # fmt: skip
    figures = write(made_up.report(adversarial, plain), tmp_path)
    (figure,) = drawn
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[::2] == ["accuracy\nwithout an attack (%)", "accuracy\nunder PGD-10 (%)"]
    norms = [axes.get_xlabel().split(" norm")[0] for axes in figure.axes]
    assert norms == ["eps (L2", "eps (L-infinity"] * 2
    assert ticks(figure.axes[0].xaxis) == ["0.5", "1.5"]
    assert ticks(figure.axes[1].xaxis) == ["4/255"]
    assert [y for _, y in means(figure.axes[0])] == [91, 90]
    assert [y for _, y in means(figure.axes[2])] == [51, 50, 10]
    assert papers(figure.axes[2]) == [4.5]
    assert texts(figure.axes[2]) == ["missing"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["AT-CE", "CE", "the paper's value"]
    assert "of cifar10" in figures["adversarial"].drawn[0].caption
    assert figures["plain"].left_out == ["Its accuracies are in the figure of adversarial."]


def test_a_part_without_a_finished_run_has_no_figure(made_up, drawn, tmp_path):
    empty = made_up.part({}, rows=("CE", "B"), name="empty")
    robust = made_up.part({}, rows=("CE",), name="robust", command="robust",
                          measures=("l2 0.5", "l2 1"), quantities=("clean",))  # fmt: skip
    figures = write(made_up.report(empty, robust), tmp_path)
    assert drawn == []
    for made in figures.values():
        assert made.drawn == []
        assert "is finished" in made.left_out[0]


def test_what_does_not_vary_is_said_and_not_drawn(made_up):
    axes = {"dataset": ("pets",), "share": ("10%", "50%")}
    part = made_up.part({}, rows=("CE",), axes=axes)
    (view,) = views_of(part)
    assert view.fixed == {"dataset": "pets"}
    assert (view.rows, view.columns) == ("row", ("share",))


def test_every_figure_has_a_description_and_no_two_share_a_file(every_kind, tmp_path):
    figures = write(every_kind, tmp_path)
    drawings = [drawing for made in figures.values() for drawing in made.drawn]
    assert len({drawing.path for drawing in drawings}) == len(drawings) == 6
    assert all(drawing.description and drawing.caption for drawing in drawings)


def test_letters_stay_inside_of_every_figure(every_kind, drawn, tmp_path):
    write(every_kind, tmp_path)
    for figure in drawn:
        figure.draw_without_rendering()
        for axes in figure.axes:
            box = axes.get_tightbbox()
            assert box.x0 >= -1
            assert box.y0 >= -1
            assert box.x1 <= figure.bbox.x1 + 1
            assert box.y1 <= figure.bbox.y1 + 1
