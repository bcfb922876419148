"""Figures: written at their size, without a warning, showing what was given and no overlap."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from core_tuning.report import figures
from core_tuning.report.figures import (
    ImageRow,
    Mark,
    Panel,
    save_confusion,
    save_embeddings,
    save_heat_map,
    save_images,
    save_lines,
    save_points,
)

LABEL = "test accuracy, top-1 (%)"


pytestmark = pytest.mark.usefixtures("no_warnings")


def size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


def points(groups, path, **options):
    save_points(groups, path, label=LABEL, **options)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def papers(axes):
    lines = [line for line in axes.lines if line.get_gid() == figures.PAPER]
    return [(*line.get_xdata(), *line.get_ydata()) for line in lines]


def large(axes):
    """(x, y, colour, marker) of the large markers."""
    return [
        (*line.get_xydata()[0], line.get_color(), line.get_marker())
        for line in axes.lines
        if line.get_marker() in tuple(figures.MARKERS) and line.get_markersize() == 6
    ]


def bars(axes):
    """The ends of each interval, (x, y)."""
    return [bar.get_segments()[0] for bar in axes.collections]


@pytest.mark.parametrize(("classes", "side"), [(2, 4.3), (10, 7.5), (60, 12.0)])
def test_confusion_grows_with_the_classes(tmp_path, classes, side):
    path = tmp_path / "new" / "confusion.png"
    save_confusion(np.eye(classes, dtype=int), [f"class {i}" for i in range(classes)], path)
    assert size(path) == pytest.approx((150 * side, 150 * side), abs=1)


def test_confusion_is_in_percent_of_the_true_class(tmp_path, drawn):
    """A class without images is a row of zeros, not a division by zero."""
    save_confusion(np.array([[3, 1], [0, 0]]), ["a", "b"], tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert axes.images[0].get_array().tolist() == [[75, 25], [0, 0]]
    assert texts(axes) == ["75", "25"]
    assert axes.get_xlabel() == "predicted class, for % of the images of the true class"
    assert axes.get_ylabel() == "true class"


def test_embeddings_have_a_panel_a_title(tmp_path, drawn):
    places, labels = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    panels = dict.fromkeys(("before", "after"), (places, labels))
    save_embeddings(panels, ["a", "b", "c"], tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (1020, 585)
    assert [axes.get_title() for axes in drawn[0].axes] == ["before", "after"]
    first = drawn[0].axes[0].collections[0].get_offsets()
    assert np.array_equal(first, places[labels == 0])


def test_embeddings_are_in_rows_of_four_at_most(tmp_path, drawn):
    places, labels = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    panels = {f"map {i}": (places, labels) for i in range(5)}
    save_embeddings(panels, ["a", "b", "c"], tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (1530, 1095)
    assert [axes.get_title() for axes in drawn[0].axes] == list(panels)


def test_points_show_runs_mean_and_interval(tmp_path, drawn):
    """Student's t of 2 degrees of freedom at 97.5% is 4.3027."""
    groups = {"art": {"ERM": Mark([1.0, 2.0, 6.0])}, "photo": {"ERM": Mark([8.0])}}
    points(groups, tmp_path / "a.png", groups_label="domain")
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (LABEL, "domain")
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["art", "photo"]
    assert [1.0, 2.0, 6.0] in [list(line.get_xdata()) for line in axes.lines]
    assert [x for x, *_ in large(axes)] == [3, 8]
    (bar,) = bars(axes)
    half = 4.3027 * math.sqrt(7 / 3)
    assert bar[:, 0] == pytest.approx([3 - half, 3 + half], rel=1e-4)


def test_the_paper_s_value_is_a_dash_below_the_markers(tmp_path, drawn):
    groups = {"art": {"ERM": Mark([60.0, 62.0], 63.0), "CORAL": Mark((), 75.0)},
              "photo": {"ERM": Mark([50.0])}}  # fmt: skip
    points(groups, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert papers(axes) == [(63, 63, -0.36, 0.36), (75, 75, 0.64, pytest.approx(1.36))]
    assert texts(axes) == ["missing"]
    assert axes.get_xlim()[1] > 75
    dashes = [line for line in axes.lines if line.get_gid() == figures.PAPER]
    markers = [line for line in axes.lines if line.get_marker() in tuple(figures.MARKERS)]
    assert all(dash.get_zorder() < mark.get_zorder() for dash in dashes for mark in markers)
    assert legend(drawn[0]) == ["ERM", "CORAL", "the paper's value"]


def test_intervals_of_few_runs_are_cut_at_0_and_100(tmp_path, drawn):
    points({"": {"ERM": Mark([30.0, 80.0]), "CORAL": Mark([97.0, 99.0])}}, tmp_path / "a.png")
    low, high = drawn[0].axes[0].get_xlim()
    assert -5 < low < 0
    assert 100 < high < 105


def test_points_keep_places_and_looks_of_methods_without_runs(tmp_path, drawn):
    groups = {"a": {"X": Mark([1.0]), "Y": Mark([2.0])}, "b": {"X": Mark(), "Y": Mark([3.0])},
              "c": {"Z": Mark([4.0])}}  # fmt: skip
    points(groups, tmp_path / "a.png")
    found = large(drawn[0].axes[0])
    assert [x for x, *_ in found] == [1, 2, 3, 4]
    # Three methods and a free row make a group 4 high.
    assert np.diff([y for _, y, *_ in found]).tolist() == pytest.approx([1, 4, 5])
    looks = [look for _, _, *look in found]
    assert looks[1] == looks[2]
    assert len({tuple(look) for look in looks}) == 3
    assert legend(drawn[0]) == ["X", "Y", "Z"]


def test_one_group_has_its_methods_on_the_axis(tmp_path, drawn):
    points({"": {"CE": Mark([1.0]), "B": Mark()}}, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["CE", "B"]
    assert legend(drawn[0]) == ["mean of all runs"]


@pytest.mark.parametrize("groups", [{}, {"art": {}}, {"art": {"ERM": Mark()}}])
def test_nothing_is_not_drawn(tmp_path, groups):
    with pytest.raises(ValueError, match="no run"):
        points(groups, tmp_path / "a.png")
    with pytest.raises(ValueError, match="no run"):
        save_lines([[Panel("x", "y", {"CE": {(1.0, "1"): Mark()}})]], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("groups", "methods", "runs"),
    [
        (("art", "cartoon", "photo", "sketch"), ("ERM", "ERM + CE-Con", "Core-tuning"), 5),
        (("art",), ("ERM",), 1),
        ([f"location number {i}" for i in range(8)], ("ERM",), 3),
        (("art", "photo"), [f"a method with a long name, {i}" for i in range(30)], 2),
    ],
    ids=["usual", "smallest", "long groups", "many methods"],
)
def test_points_have_no_overlap(tmp_path, drawn, groups, methods, runs):
    generator = np.random.default_rng(0)
    marks = {
        group: {method: Mark(list(generator.normal(70, 5, runs)), 71.0) for method in methods}
        for group in groups
    }
    points(marks, tmp_path / "a.png", groups_label="target domain")
    (figure,) = drawn
    assert size(tmp_path / "a.png") == pytest.approx(tuple(150 * figure.get_size_inches()), abs=1)
    figure.dpi = 150
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [tick.get_window_extent() for tick in axes.get_yticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(names))
    below = figure.legends[0].get_window_extent()
    assert below.y1 < axes.get_window_extent().y0
    for box in (below, axes.get_tightbbox()):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    # Rows do not touch; a diamond is its size times sqrt(2).
    pixels = abs(np.diff(axes.transData.transform([(0, 0), (0, 1)])[:, 1])[0])
    assert 0.7 * pixels * 72 / 150 > 6


def test_lines_stand_side_by_side_with_the_paper_s_value(tmp_path, drawn):
    lines = {"CE": {(0.1, "0.1"): Mark([1.0, 3.0], 4.0), (0.5, "0.5"): Mark([2.0])},
             "B": {(0.1, "0.1"): Mark([5.0]), (0.5, "0.5"): Mark()}}  # fmt: skip
    save_lines([[Panel("x", "y (%)", lines), Panel("z", "y (%)", {})]], tmp_path / "a.png")
    axes, empty = drawn[0].axes
    assert [(round(x, 3), y) for x, y, *_ in large(axes)] == [
        (0.091, 2), (0.491, 2), (0.109, 5),
    ]  # fmt: skip
    assert [y for *_, y in papers(axes)] == [4]
    assert texts(axes) == ["missing"] and texts(empty) == ["not measured"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.1", "0.5"]
    assert legend(drawn[0]) == ["CE", "B", "the paper's value"]
    assert axes.get_ylim() == empty.get_ylim()


def test_lines_are_logarithmic_where_steps_would_crowd(tmp_path, drawn):
    line = {(x, f"{x:g}"): Mark([50.0]) for x in (0.01, 0.1, 1.0)}
    save_lines([[Panel("x", "y", {"": line})]], tmp_path / "a.png")
    assert [x for x, *_ in large(drawn[0].axes[0])] == pytest.approx([-2, -1, 0])
    assert drawn[0].axes[0].get_xticks().tolist() == [-2, -1, 0]


def test_labels_of_ticks_do_not_run_into_each_other(tmp_path, drawn):
    line = {(float(x), str(x)): Mark([50.0]) for x in (0, 1, 2, 50, 100)}
    save_lines([[Panel("x", "y", {"": line})]], tmp_path / "a.png")
    assert [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()] == ["2", "50", "100"]


def test_a_given_interval_is_drawn(tmp_path, drawn):
    panel = Panel("eps", "right (%)", {"PGD": {(0.5, "0.5"): Mark([40.0], interval=(33.0, 48.0))}})
    save_lines([[panel]], tmp_path / "a.png", reading="with 95% intervals")
    assert bars(drawn[0].axes[0])[0][:, 1].tolist() == [33, 48]
    assert drawn[0].legends[0].get_title().get_text() == "with 95% intervals"


def test_a_heat_map_has_its_texts_and_says_what_is_missing(tmp_path, drawn):
    means = np.array([[1.0, math.nan], [3.0, 4.0]])
    save_heat_map(means, [["a", "missing"], ["c", "d"]], tmp_path / "a.png", rows=["0", "1"],
                  columns=["2", "3"], xlabel="x", ylabel="y", label="l", title="t")  # fmt: skip
    axes = drawn[0].axes[0]
    assert texts(axes) == ["a", "missing", "c", "d"]
    assert [patch.get_hatch() for patch in axes.patches] == ["///"]
    assert [text.get_color() for text in axes.texts] == ["white", figures.DARK, "black", "black"]
    with pytest.raises(ValueError, match="no cell has a mean"):
        save_heat_map(means * math.nan, [["", ""]] * 2, tmp_path / "b.png", rows=["0", "1"],
                      columns=["2", "3"], xlabel="x", ylabel="y", label="l")  # fmt: skip


def test_images_are_drawn_as_they_are(tmp_path, drawn):
    images = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    save_images([ImageRow("a", images, ["x", "y", "z"]), ImageRow("b", images[:1])], tmp_path / "a")
    (axes,) = drawn[0].axes
    assert texts(axes) == ["a", "x", "y", "z", "b"]
    assert len(axes.images) == 4
    assert np.array_equal(axes.images[1].get_array(), images[1])
    places = [image.get_extent() for image in axes.images]
    assert all(right - left == pytest.approx(low - top) for left, right, low, top in places)


def test_methods_are_told_apart_by_colour_and_in_grey():
    looks = [figures.look(position) for position in range(40)]
    assert len(set(looks)) == 40
    assert len({marker for _, marker in looks[:10]}) == 10


def test_import_leaves_matplotlib_as_it_is():
    """In a notebook, the reader's own figures must still be shown."""
    program = (
        "import sys, matplotlib\n"
        "matplotlib.use('svg')\n"
        "import core_tuning.report.figures\n"
        "print(matplotlib.get_backend(), 'matplotlib.pyplot' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["svg", "False"]


def test_summaries_and_pages_do_not_import_matplotlib():
    program = (
        "import sys, core_tuning.report.page, core_tuning.report.summary\n"
        "print(*(name in sys.modules for name in ('matplotlib', 'scipy', 'pandas', 'torch')))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["False"] * 4
