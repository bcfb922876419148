"""t-SNE maps of real models of one step; where they cannot be made the page says why."""

from __future__ import annotations

import errno
import json
import os
import shutil

import pytest

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.report.page import html
from core_tuning.sweeps.reporting import features
from core_tuning.sweeps.reporting.features import choose_runs, draw_features
from core_tuning.sweeps.reporting.page import draw_figures, page_of


@pytest.fixture(scope="module")
def sweep_folder(tmp_path_factory):
    """A folder with runs/id--0, fine-tuned on the embedded data for an epoch of few steps."""
    folder = tmp_path_factory.mktemp("sweep")
    arguments = ["--epochs", "1", "--fraction", "0.05", "--batch-size", "32", "--workers", "0"]
    run = folder / "runs" / "id-CE-0"
    assert main(["finetune", "--method", "ce", *arguments, "--output", str(run)]) == 0
    shutil.copytree(run, folder / "runs" / "id-B-0")
    return folder


def page_with_maps(report, sweep, folder):
    return html(page_of(report, draw_figures(report, sweep / "runs", folder / "figures")))


@pytest.fixture
def few_images(monkeypatch):
    """As t-SNE of all of them would take its time."""
    monkeypatch.setattr(features, "MOST_IMAGES", 40)


@pytest.fixture
def one_part(made_up):
    values = {(row, "", "accuracy"): [50.0] for row in ("CE", "B")}
    return made_up.part(values, rows=("CE", "B", "C"), name="ablation")


def test_maps_are_of_the_same_images(sweep_folder, one_part, few_images, drawn, tmp_path):
    drawing = draw_features(one_part, sweep_folder / "runs", tmp_path / "a.png")
    (figure,) = drawn
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["before fine-tuning", "CE", "B"]
    counts = [[len(each.get_offsets()) for each in axes.collections] for axes in figure.axes]
    assert counts[0] == counts[1] == counts[2]
    assert sum(counts[0]) == 40
    before, first, same = (
        [each.get_offsets().tolist() for each in axes.collections] for axes in figure.axes
    )
    # The two models are copies, and nothing is random.
    assert first == same != before
    assert "40 test images of emoji_domains, of its first 10 classes, seed 0" in drawing.caption


def test_the_page_has_the_maps(sweep_folder, one_part, few_images, made_up, tmp_path):
    page = page_with_maps(made_up.report(one_part), sweep_folder, tmp_path)
    assert (tmp_path / "figures" / "1-ablation-tsne.png").is_file()
    assert "t-SNE of the features of 40 test images" in page


def test_the_page_says_why_there_are_none(one_part, made_up, tmp_path):
    page = page_with_maps(made_up.report(one_part), tmp_path / "sweep", tmp_path)
    assert "No t-SNE maps: " in page
    assert "run.json" in page


def test_a_data_set_that_is_not_there_is_said(sweep_folder, one_part, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sweep_folder / "runs", runs)
    config = runs / "id-CE-0" / "run.json"
    config.write_text(config.read_text().replace('"emoji_domains"', '"cifar10"'))
    with pytest.raises(UserError, match="cifar10"):
        draw_features(one_part, runs, tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_a_model_that_is_gone_is_said(sweep_folder, one_part, few_images, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sweep_folder / "runs", runs)
    (runs / "id-B-0" / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"id-B-0 has no model\.safetensors yet"):
        draw_features(one_part, runs, tmp_path / "a.png")


def test_a_lost_checkpoint_costs_its_map_alone(sweep_folder, one_part, few_images, drawn, tmp_path):
    runs = tmp_path / "runs"
    shutil.copytree(sweep_folder / "runs", runs)
    config = runs / "id-CE-0" / "run.json"
    config.write_text(
        config.read_text().replace('"pretrained": "embedded"', '"pretrained": "gone.pth"')
    )
    drawing = draw_features(one_part, runs, tmp_path / "a.png")
    assert [axes.get_title() for axes in drawn[0].axes] == ["CE", "B"]
    assert "The map before fine-tuning is left out: " in drawing.caption


def test_the_seed_that_most_rows_have_is_chosen(made_up):
    part = made_up.part(
        {("CE", "pets", "", "accuracy"): [50.0, 51.0], ("B", "pets", "", "accuracy"): [50.0, 51.0],
         ("B", "cars", "", "accuracy"): [50.0]},
        rows=("B", "CE"), axes={"dataset": ("dtd", "pets", "cars")},
    )  # fmt: skip
    without = part.values[part.values["id"] != "id-CE-pets-0"]
    chosen = choose_runs(part._replace(values=without))
    assert list(chosen["id"]) == ["id-B-pets-1", "id-CE-pets-1"]


def test_no_more_than_five_rows_are_drawn(made_up):
    rows = [f"method {name}" for name in "gfedcba"]
    part = made_up.part({(row, "", "accuracy"): [50.0] for row in rows}, rows=rows)
    assert list(choose_runs(part)["row"]) == rows[:5]


def test_nothing_finished_is_said(made_up, tmp_path):
    with pytest.raises(UserError, match="No run is finished"):
        draw_features(made_up.part({}, rows=("CE",)), tmp_path, tmp_path / "a.png")


def test_a_configuration_that_lacks_something_is_said(sweep_folder, one_part, made_up, tmp_path):
    runs = tmp_path / "sweep" / "runs"
    shutil.copytree(sweep_folder / "runs", runs)
    path = runs / "id-CE-0" / "run.json"
    contents = json.loads(path.read_text())
    path.write_text(json.dumps({**contents, "options": {"dataset": "emoji_domains"}}))
    page = page_with_maps(made_up.report(one_part), tmp_path / "sweep", tmp_path)
    assert "No t-SNE maps: " in page
    assert "run.json is damaged (it lacks data_dir, encoder, normalisation" in page


def test_what_cannot_be_read_is_not_a_full_disk(
    sweep_folder, one_part, made_up, monkeypatch, tmp_path
):
    def unreadable(*arguments, **options):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "images.zip")

    monkeypatch.setattr(features, "load_splits", unreadable)
    page = page_with_maps(made_up.report(one_part), sweep_folder, tmp_path)
    assert "No t-SNE maps: images.zip cannot be read (Permission denied)." in page
