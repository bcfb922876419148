"""`core-tuning dg` on folders as users have them: changed, damaged, linked, turned."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from core_tuning.algorithms.environments import load_environments
from core_tuning.algorithms.names import DATASETS
from core_tuning.cli import main


@pytest.fixture
def data(kit, tmp_path):
    """A copy of the domains, which may be changed."""
    shutil.copytree(kit.data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def argv(kit, tmp_path, data):
    def make(*options, folder=data):
        return kit.argv(tmp_path / "run", "--data_dir", folder, "--skip_model_save", *options)

    return make


def _stopped(argv, tmp_path):
    assert main(argv()) == 0
    (tmp_path / "run" / "done").unlink()
    return tmp_path / "run"


def test_resume_after_an_image_was_added(kit, argv, data, tmp_path, capsys):
    run = _stopped(argv, tmp_path)
    before = kit.stamps(run)
    added = data / "toys/cut/bee/new.png"
    shutil.copy(data / "toys/cut/bee/000.png", added)
    assert kit.sentence(capsys, argv("--resume")) == (
        f"The run in {run} was started with other images: class 'bee' of cut has 13 images, not "
        "12; give --resume the images that it was started with, or start another with --output."
    )
    assert kit.stamps(run) == before
    added.unlink()
    assert main(argv("--resume")) == 0


def test_resume_where_the_images_lie_elsewhere(argv, data, tmp_path):
    run = _stopped(argv, tmp_path)
    shutil.move(data, tmp_path / "elsewhere")
    assert main(argv("--resume", folder=tmp_path / "elsewhere")) == 0
    assert (run / "done").exists()


@pytest.mark.parametrize("damage", ["text", "FIFO"])
def test_a_bad_image_is_refused_before_a_run_folder_is_made(
    kit, argv, data, tmp_path, capsys, damage
):
    path = data / "toys/dots/ant/x.png"
    if damage == "text":
        path.write_text("not an image")
    else:
        os.mkfifo(path)
    assert "toys/dots/ant/x.png (it is" in kit.sentence(capsys, argv())
    assert not (tmp_path / "run").exists()


def test_no_scan(kit, argv, data, capsys):
    (data / "toys/dots/ant/x.png").write_text("not an image")
    assert main(argv("--no-scan", "--memory", 0)) == 2
    assert "x.png cannot be read" in capsys.readouterr().err


def test_what_is_skipped_is_printed_once(argv, data, tmp_path, capsys):
    (data / "toys/cut/ant/x.heic").touch()
    (data / "toys/cut/readme.txt").touch()
    (tmp_path / "far").mkdir()
    shutil.copy(data / "toys/cut/ant/000.png", tmp_path / "far" / "linked.png")
    (data / "toys/cut/ant/linked").symlink_to(tmp_path / "far")
    assert main(argv("--test_envs", "all", "--steps", 1)) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("warning: ")] == [
        "warning: Skipped files without a known suffix of an image: 1 (.heic 1), such as "
        "cut/ant/x.heic.",
        "warning: Skipped files that lie in no class folder: 1, such as cut/readme.txt.",
    ]
    environments = load_environments("toys", data)
    assert environments.fingerprint["images"]["cut"] == {"ant": 13, "bee": 12, "cicada": 12}


@pytest.mark.parametrize("name", ["photos", *(name for name in DATASETS if name != "EmojiDomains")])
def test_orientation_counts_in_a_users_folder_alone(kit, tmp_path, name):
    """DomainBed's loader does not turn images; what is compared with it is read alike."""
    folder = DATASETS[name].folder if name in DATASETS else name
    kit.write_domains(tmp_path / folder, {"a": 1, "b": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / folder / "a/ant/000.jpg"
    (tmp_path / folder / "a/ant/000.png").unlink()
    stored = np.zeros((16, 32, 3), np.uint8)
    Image.fromarray(stored).save(path, exif=exif.tobytes())
    image, _ = load_environments(name, tmp_path).images[0][0]
    assert image.size == ((16, 32) if name == "photos" else (32, 16))


def test_the_images_are_in_a_runs_config(argv, tmp_path):
    assert main(argv()) == 0
    found = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert found["images"]["brush"] == {"ant": 10, "bee": 10, "cicada": 10}
    assert len(found["sha256"]) == 64
