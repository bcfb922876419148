"""Which files of a folder are images, in ImageFolder's order, and what is skipped is said."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from core_tuning.data import load_domains, load_splits
from core_tuning.data.folder import subfolders
from core_tuning.errors import UserError


@pytest.fixture
def root(tmp_path, write_classes):
    for part in ("train", "val"):
        write_classes(tmp_path / "data" / part, "cat dog", 3)
    return tmp_path / "data"


def _train(root):
    return load_splits("folder", root, validation=0).train


def test_linked_folders_and_files_are_read_as_imagefolder_reads_them(root, tmp_path, write_image):
    for name in ("b/2.jpg", "b/1.PNG", "b/deep/er/3.jpeg", "a.jpg"):
        write_image(tmp_path / "elsewhere" / Path(name).with_suffix(".jpg"))
        (tmp_path / "elsewhere" / Path(name).with_suffix(".jpg")).rename(
            tmp_path / "elsewhere" / name
        )
    (root / "train/cat/more").symlink_to(tmp_path / "elsewhere")
    (root / "train/cat/z.jpg").symlink_to(tmp_path / "elsewhere" / "a.jpg")
    (root / "train/elk").symlink_to(tmp_path / "elsewhere" / "b")
    (root / "val/elk").symlink_to(tmp_path / "elsewhere" / "b")
    expected = ImageFolder(str(root / "train"))
    images = _train(root)
    assert list(zip(images.paths, images.labels, strict=True)) == expected.samples
    assert images.classes == expected.classes == ["cat", "dog", "elk"]
    assert images.labels == [0] * 8 + [1] * 3 + [2] * 3
    domains = load_domains(root)
    assert domains["train"].paths == images.paths


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_back_is_followed_no_further(root, target):
    (root / "train/cat/loop").symlink_to(target)
    (root / "train/cat/sub").mkdir()
    (root / "train/cat/sub/loop").symlink_to(root / "train" / "cat")
    splits = load_splits("folder", root, validation=0)
    assert len(splits.train) == 6
    assert splits.warnings == [
        "Skipped links that lead back to a folder above them: 2, such as train/cat/loop."
    ]


def test_a_loop_through_a_linked_class(root, tmp_path):
    """The link leads above the class by its name, though not by where the class really lies."""
    (root / "train/cat").rename(tmp_path / "far")
    (root / "train/cat").symlink_to(tmp_path / "far")
    (tmp_path / "far/back").symlink_to(root / "train")
    splits = load_splits("folder", root, validation=0)
    assert len(splits.train) == 6
    assert "links that lead back to a folder above them: 1" in splits.warnings[0]


def test_what_is_skipped_is_counted_with_an_example(root, write_image):
    for name in ("cat/x.heic", "cat/y.HEIC", "cat/z.gif", "dog/notes", "dog/a.jfif"):
        (root / "train" / name).touch()
    write_image(root / "train/dog/.thumbnail.jpg")
    write_image(root / "val/dog/.cache/x.jpg")
    write_image(root / "val/__MACOSX/x.jpg")
    write_image(root / "val/stray.jpg")
    splits = load_splits("folder", root, validation=0)
    assert (len(splits.train), len(splits.test)) == (6, 6)
    assert splits.warnings == [
        "Skipped files without a known suffix of an image: 5 (.heic 2, .gif 1, .jfif 1, none 1), "
        "such as train/cat/x.heic.",
        "Skipped hidden files or folders: 3, such as train/dog/.thumbnail.jpg.",
        "Skipped files that lie in no class folder: 1, such as val/stray.jpg.",
    ]


def test_names_of_skipped_files_stay_on_their_line(root):
    (root / "train/cat" / os.fsdecode(b"a\n\xff\x1b[31m.txt")).touch()
    (warning,) = load_splits("folder", root).warnings
    assert warning.endswith("such as train/cat/a\\x0a\\xff\\x1b[31m.txt.")


def test_an_image_whose_name_is_not_utf_8_is_read(root, write_image):
    write_image(root / "train/cat/x.png").rename(root / "train/cat" / os.fsdecode(b"\xff\n.png"))
    images = _train(root)
    assert len(images) == 7
    assert images[3][0].size == (8, 8)


def test_a_folder_that_cannot_be_read(root, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"train/dog cannot be read \(Permission denied\): give"):
        load_splits("folder", root)


def test_subfolders_without_links_to_nowhere(root):
    (root / "itself").symlink_to(root / "itself")
    (root / "gone").symlink_to(root / "nowhere")
    assert [path.name for path in subfolders(root)] == ["train", "val"]
