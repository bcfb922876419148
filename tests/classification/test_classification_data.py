"""The commands on folders as users have them: changed, damaged, linked, oddly named."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from core_tuning.cli import main


@pytest.fixture
def command(kit, tmp_path, data):
    """Make the command line of a run of two steps on a folder of images."""

    def make(*options, folder=data, output="run"):
        return ("finetune", "--dataset", "folder", "--data-dir", folder, "--pretrained",
                "embedded", *kit.SMALL, "--epochs", 2, "--limit-steps", 2, "--output",
                tmp_path / output, *options)  # fmt: skip

    return make


@pytest.fixture
def stopped(command, tmp_path):
    """A run that has been stopped before its end."""

    def make(*options):
        assert main([str(each) for each in command(*options)]) == 0
        for result in tmp_path.glob("run/**/result.json"):
            result.unlink()
        return tmp_path / "run"

    return make


def _add_image(data, name="new.png", part="train"):
    path = data / part / "ant" / name
    shutil.copy(data / part / "ant" / "0000.png", path)
    return path


def test_the_images_are_in_a_runs_config(kit, stopped):
    found = kit.read(stopped() / "run.json")["data"]
    assert found["images"] == {"train": {"ant": 12, "bee": 12}, "validation": {"ant": 6, "bee": 6},
                               "test": {"ant": 9, "bee": 9}}  # fmt: skip
    assert len(found["sha256"]) == 64


def test_resume_after_an_image_was_added(kit, stopped, command, data, capsys):
    run = stopped()
    before = kit.files(run)
    added = _add_image(data)
    assert kit.refused(capsys, *command("--resume")) == (
        f"core-tuning: error: The run in {run} was started with other images: class 'ant' of "
        "train has 13 images, not 12; give --resume the images that it was started with, or start "
        "another with --output.\n"
    )
    assert kit.files(run) == before
    added.unlink()
    assert main([str(each) for each in command("--resume")]) == 0


def test_resume_where_the_images_lie_elsewhere(kit, stopped, command, data, tmp_path):
    run = stopped()
    first = kit.read(run / "run.json")
    shutil.copytree(data, tmp_path / "copy")
    shutil.rmtree(data)
    assert main([str(each) for each in command("--resume", folder=tmp_path / "copy")]) == 0
    second = kit.read(run / "run.json")
    assert second["data"] == first["data"]
    assert second["options"]["data_dir"] == str(tmp_path / "copy")


def test_another_seed_with_other_images(kit, stopped, command, data, tmp_path, capsys):
    assert main([str(each) for each in command("--seeds", 0, 1)]) == 0
    shutil.rmtree(tmp_path / "run" / "seed-1")
    _add_image(data)
    error = kit.refused(capsys, *command("--seeds", 0, 1, "--resume"))
    assert "run was started with other images: class 'ant' of train has 13 images, not 12" in error
    assert not (tmp_path / "run" / "seed-1").exists()


def test_evaluate_says_that_the_images_have_changed(kit, finetune, data, capsys):
    run = finetune(epochs=1)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--workers", "0"]) == 0
    assert "warning" not in capsys.readouterr().out
    _add_image(data, part="test")
    assert main(["evaluate", str(run), "--workers", "0"]) == 0
    assert (
        "warning: the images are not those of the run: class 'ant' of test has 10 images, not 9."
    ) in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["text", "FIFO", "float"])
def test_a_bad_image_is_refused_before_a_run_folder_is_made(
    kit, command, data, tmp_path, capsys, damage
):
    path = data / "train" / "bee" / "x.png"
    if damage == "text":
        path.write_text("not an image")
    elif damage == "FIFO":
        os.mkfifo(path)
    else:
        Image.new("F", (4, 4), 0.5).save(path, "TIFF")
    error = kit.refused(capsys, *command())
    assert "error: 1 of " in error
    assert "train/bee/x.png (it" in error
    assert not (tmp_path / "run").exists()


def test_no_scan_meets_a_bad_image_in_training(kit, command, data, tmp_path, capsys):
    for number in range(12):
        (data / "train" / "bee" / f"{number:04d}.png").write_text("not an image")
    assert main([str(each) for each in command("--no-scan")]) == 2
    error = capsys.readouterr().err
    assert "cannot be read (it is not an image of a known format): replace it" in error
    assert (tmp_path / "run" / "run.json").exists()


def test_no_scan_may_be_given_on_resume(stopped, command):
    stopped()
    assert main([str(each) for each in command("--resume", "--no-scan")]) == 0


def test_what_is_skipped_is_printed_and_kept_in_the_result(
    kit, command, data, tmp_path, write_folder, capsys
):
    (data / "train/ant/x.heic").touch()
    (data / "train/ant/.DS_Store").touch()
    (data / "val").rename(data / "valid")
    write_folder(data, {"more": 2})
    (tmp_path / "far").mkdir()
    shutil.copy(data / "train/ant/0000.png", tmp_path / "far/linked.png")
    (data / "train/ant/linked").symlink_to(tmp_path / "far")
    assert main([str(each) for each in command()]) == 0
    result = kit.read(tmp_path / "run" / "result.json")
    assert result["split"] == "folder train/valid/test"
    assert result["warnings"] == [
        f"The folder {data} also holds 'more', not used: the names of parts are train or "
        "training; val or valid or validation or dev; test or testing.",
        "Skipped hidden files or folders: 1, such as train/ant/.DS_Store.",
        "Skipped files without a known suffix of an image: 1 (.heic 1), such as train/ant/x.heic.",
    ]
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if line.startswith("warning: ")] == [
        f"warning: {warning}" for warning in result["warnings"]
    ]
    config = kit.read(tmp_path / "run" / "run.json")
    assert config["data"]["images"]["train"] == {"ant": 13, "bee": 12}


@pytest.mark.parametrize("name", [b"caf\xe9", b"two\nlines"])
def test_a_class_that_no_table_can_name_is_refused_at_once(
    kit, command, data, tmp_path, capsys, name
):
    for part in ("train", "val", "test"):
        (data / part / "ant").rename(data / part / os.fsdecode(name))
    error = kit.refused(capsys, *command())
    assert f"has the class '{name.decode('latin-1').encode('unicode_escape').decode()}'" in (
        error.replace("\\x0a", "\\n")
    )
    assert not (tmp_path / "run").exists()


def test_odd_names_that_are_allowed(kit, command, data, tmp_path):
    odd = '日本 $x$, "a" =1'
    for part in ("train", "val", "test"):
        (data / part / "ant").rename(data / part / odd)
    shutil.copy(data / "train/bee/0000.png", data / "train/bee" / os.fsdecode(b"\xff\n.png"))
    assert main([str(each) for each in command()]) == 0
    assert kit.read(tmp_path / "run/run.json")["data"]["images"]["test"][odd] == 9


def test_images_of_16_bits_give_the_result_of_8(kit, command, data, tmp_path):
    for bits, scale in ((8, 1), (16, 257)):
        for path in data.rglob("*.png"):
            grey = np.asarray(Image.open(path).convert("L"))
            target = tmp_path / f"{bits}" / path.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey * (np.uint16(scale) if scale > 1 else np.uint8(1))).save(target)
        options = command(folder=tmp_path / f"{bits}", output=f"run{bits}")
        assert main([str(each) for each in options]) == 0
    first, second = (tmp_path / f"run{bits}" / "model.safetensors" for bits in (8, 16))
    assert first.read_bytes() == second.read_bytes()
