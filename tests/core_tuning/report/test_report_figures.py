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
    save_accuracies,
    save_confusion,
    save_embeddings,
    save_grouped_accuracies,
)

GROUPS = ("art", "cartoon", "photo", "sketch")
METHODS = ("ERM", "ERM + CE-Con", "Core-tuning", "CORAL", "GroupDRO", "Mixup", "SagNet")
LABEL = "test accuracy, top-1 (%)"


pytestmark = pytest.mark.usefixtures("no_warnings")


def size(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        return image.size


def made_up(groups=GROUPS, methods=METHODS, runs=5):
    generator = np.random.default_rng(0)
    return {
        group: {method: list(generator.normal(70, 5, runs)) for method in methods}
        for group in groups
    }


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
    assert [text.get_text() for text in axes.texts] == ["75", "25"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")


def test_accuracies_show_runs_mean_and_standard_error(tmp_path, drawn):
    save_accuracies({"CE": [1.0, 2.0, 6.0], "CE-Con": [4.0]}, tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (825, 540)
    axes = drawn[0].axes[0]
    assert axes.get_ylabel() == LABEL
    heights = [list(line.get_ydata()) for line in axes.lines]
    assert [1.0, 2.0, 6.0] in heights
    assert [3.0] in heights
    (bar,) = [bars.get_segments()[0] for bars in axes.collections]
    error = math.sqrt(7 / 3)
    assert bar[:, 1] == pytest.approx([3 - error, 3 + error])


def test_embeddings_have_a_panel_a_title(tmp_path, drawn):
    points, labels = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    panels = dict.fromkeys(("before", "after"), (points, labels))
    save_embeddings(panels, ["a", "b", "c"], tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (1020, 585)
    assert [axes.get_title() for axes in drawn[0].axes] == ["before", "after"]
    first = drawn[0].axes[0].collections[0].get_offsets()
    assert np.array_equal(first, points[labels == 0])


def test_grouped_shows_runs_mean_and_interval(tmp_path, drawn):
    """Student's t of 2 degrees of freedom at 97.5% is 4.3027."""
    accuracies = {"art": {"ERM": [1.0, 2.0, 6.0]}, "photo": {"ERM": [8.0]}}
    save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL, xlabel="target domain")
    axes = drawn[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("target domain", LABEL)
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["art", "photo"]
    heights = [list(line.get_ydata()) for line in axes.lines]
    assert all(expected in heights for expected in ([1.0, 2.0, 6.0], [3.0], [8.0]))
    (bar,) = [bars.get_segments()[0] for bars in axes.collections]
    half = 4.3027 * math.sqrt(7 / 3)
    assert bar[:, 1] == pytest.approx([3 - half, 3 + half], rel=1e-4)


def test_embeddings_are_in_rows_of_four_at_most(tmp_path, drawn):
    points, labels = np.arange(24.0).reshape(12, 2), np.arange(12) % 3
    panels = {f"map {i}": (points, labels) for i in range(5)}
    save_embeddings(panels, ["a", "b", "c"], tmp_path / "a.png")
    assert size(tmp_path / "a.png") == (1530, 1095)
    assert [axes.get_title() for axes in drawn[0].axes] == list(panels)


def test_bars_begin_at_zero_and_differ_in_grey(tmp_path, drawn):
    accuracies = {"art": {"ERM": [60.0, 62.0], "CORAL": [70.0], "SagNet": []}}
    save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL, bars=True)
    axes = drawn[0].axes[0]
    bars = [container[0] for container in axes.containers if hasattr(container, "patches")]
    assert [(bar.get_y(), bar.get_height()) for bar in bars] == [(0, 61), (0, 70)]
    assert axes.get_ylim()[0] == 0
    assert len({bar.get_hatch() for bar in bars}) == 2
    assert [text.get_text() for text in axes.texts] == ["missing"]
    assert axes.texts[0].get_position()[0] == 2


@pytest.mark.parametrize("bars", [False, True])
def test_the_paper_s_value_is_a_dash_below_the_markers(tmp_path, drawn, bars):
    accuracies = {"art": {"ERM": [60.0, 62.0], "CORAL": []}, "photo": {"ERM": [50.0]}}
    paper = {"art": {"ERM": 63.0, "CORAL": 75.0}}
    save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL, paper=paper, bars=bars)
    axes = drawn[0].axes[0]
    dashes = [line for line in axes.lines if line.get_gid() == figures.PAPER]
    assert [(line.get_xdata()[0], *line.get_ydata()) for line in dashes] == [
        (-0.45, 63, 63), (0.55, 75, 75),
    ]  # fmt: skip
    assert axes.get_ylim()[1] > 75
    markers = [line for line in axes.lines if line.get_marker() in tuple(figures.MARKERS)]
    assert all(dash.get_zorder() < mark.get_zorder() for dash in dashes for mark in markers)
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["ERM", "CORAL", "the paper's value"]


def test_intervals_of_few_runs_are_cut_at_0_and_100(tmp_path, drawn):
    accuracies = {"art": {"ERM": [30.0, 80.0], "CORAL": [97.0, 99.0]}}
    save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL)
    low, high = drawn[0].axes[0].get_ylim()
    assert -5 < low < 0
    assert 100 < high < 105


def means(axes):
    """(x, y, colour, marker) of the large markers."""
    lines = [line for line in axes.lines if line.get_markersize() > 5]
    return [(*line.get_xydata()[0], line.get_color(), line.get_marker()) for line in lines]


def test_grouped_keeps_places_and_looks_of_methods_without_runs(tmp_path, drawn):
    accuracies = {"a": {"X": [1.0], "Y": [2.0]}, "b": {"X": [], "Y": [3.0]}, "c": {"Z": [4.0]}}
    save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL)
    found = means(drawn[0].axes[0])
    assert [y for _, y, _, _ in found] == [1, 2, 3, 4]
    places = [x for x, *_ in found]
    # Three methods and half a place on either side make a group 4 wide.
    assert np.diff(places).tolist() == pytest.approx([1, 4, 5])
    looks = [look for _, _, *look in found]
    assert looks[1] == looks[2]
    assert len({tuple(look) for look in looks}) == 3
    names = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert names == ["X", "Y", "Z"]


@pytest.mark.parametrize("accuracies", [{}, {"art": {}}, {"art": {"ERM": []}}])
def test_grouped_refuses_to_draw_nothing(tmp_path, accuracies):
    with pytest.raises(ValueError, match="no group has any run"):
        save_grouped_accuracies(accuracies, tmp_path / "a.png", ylabel=LABEL)
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("groups", "methods", "runs"),
    [
        (GROUPS, METHODS, 5),
        (GROUPS[:1], METHODS[:1], 1),
        ([f"location number {i}" for i in range(8)], METHODS[:1], 3),
        (GROUPS[:2], [f"a method with a long name, {i}" for i in range(30)], 2),
    ],
    ids=["usual", "smallest", "long groups", "many methods"],
)
def test_grouped_has_no_overlap(tmp_path, drawn, groups, methods, runs):
    save_grouped_accuracies(
        made_up(groups, methods, runs), tmp_path / "a.png", ylabel=LABEL, xlabel="target domain"
    )
    (figure,) = drawn
    assert size(tmp_path / "a.png") == pytest.approx(tuple(150 * figure.get_size_inches()), abs=1)
    figure.dpi = 150
    figure.draw_without_rendering()
    axes = figure.axes[0]
    names = [tick.get_window_extent() for tick in axes.get_xticklabels()]
    assert not any(a.overlaps(b) for a, b in itertools.pairwise(names))
    legend = figure.legends[0].get_window_extent()
    assert legend.x0 > axes.get_window_extent().x1
    for box in (legend, axes.get_tightbbox()):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
    # Large and small markers stand in columns of their own; a diamond is its size times sqrt(2).
    markers = [line for line in axes.lines if line.get_marker() in figures.MARKERS]
    columns = sorted((line.get_xdata()[0], line.get_markersize()) for line in markers)
    assert len(columns) == 2 * len(groups) * len(methods)
    points = [axes.transData.transform((x, 0))[0] * 72 / 150 for x, _ in columns]
    halves = [size_in_points / 2 * math.sqrt(2) for _, size_in_points in columns]
    for i, j in itertools.pairwise(range(len(columns))):
        assert points[j] - points[i] > halves[i] + halves[j]


def test_grouped_is_wider_with_more_groups(tmp_path):
    for count in (2, 4):
        accuracies = made_up(GROUPS[:count])
        save_grouped_accuracies(accuracies, tmp_path / f"{count}.png", ylabel=LABEL)
    two, four = (size(tmp_path / f"{count}.png") for count in (2, 4))
    assert four[1] == two[1]
    # 7 methods and the space between groups, 0.22 inches each, at 150 dots an inch.
    assert four[0] - two[0] == pytest.approx(2 * 8 * 0.22 * 150, abs=1)


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
        "print('matplotlib' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "False"
