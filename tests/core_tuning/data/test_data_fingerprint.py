"""A fingerprint changes with the images and with nothing else, and a change is named."""

from __future__ import annotations

import os
import shutil
import time

import numpy as np
import pytest

from core_tuning.data import check_same_images, describe_change, fingerprint, load_splits
from core_tuning.data.images import DecodedImages, ImageFiles
from core_tuning.errors import UserError


@pytest.fixture
def root(tmp_path, write_classes):
    root = tmp_path / "data"
    for part, count in (("train", 4), ("val", 2), ("test", 3)):
        write_classes(root / part, "cat dog", count)
    return root


def _of(root, **options):
    return load_splits("folder", root, **options).fingerprint


def test_it_counts_images_by_part_and_class(root):
    found = _of(root)
    assert found["images"] == {
        "train": {"cat": 4, "dog": 4},
        "validation": {"cat": 2, "dog": 2},
        "test": {"cat": 3, "dog": 3},
    }
    assert len(found["sha256"]) == 64


def test_place_time_links_and_choices_do_not_count(root, tmp_path):
    expected = _of(root)
    for path in root.rglob("*.jpg"):
        os.utime(path, (1, 1))
    assert _of(root) == expected
    shutil.copytree(root, tmp_path / "a copy")
    assert _of(tmp_path / "a copy") == expected
    (tmp_path / "link").symlink_to(root)
    assert _of(tmp_path / "link") == expected
    assert _of(f"{tmp_path}//link/") == expected
    assert _of(root, seed=5, fraction=0.5, validation=0.3) == expected


def test_a_relative_folder_is_the_same(root, monkeypatch):
    expected = _of(root)
    monkeypatch.chdir(root.parent)
    assert _of("data") == expected
    monkeypatch.chdir(root)
    assert _of(".") == expected


def _added(root):
    shutil.copy(root / "train/cat/image_0001.jpg", root / "train/cat/new.jpg")


def _moved(source, target):
    return lambda root: (root / source).rename(root / target)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_added, "class 'cat' of train has 5 images, not 4"),
        (
            lambda root: (root / "test/dog/image_0001.jpg").unlink(),
            "class 'dog' of test has 2 images, not 3",
        ),
        (
            _moved("train/cat/image_0001.jpg", "train/dog/moved.jpg"),
            "class 'cat' of train has 3 images, not 4, class 'dog' of train has 5 images, not 4",
        ),
        (
            _moved("train/cat/image_0001.jpg", "val/cat/moved.jpg"),
            "class 'cat' of train has 3 images, not 4, class 'cat' of validation has 3 images, "
            "not 2",
        ),
        (
            lambda root: shutil.rmtree(root / "val"),
            "class 'cat' of validation has 0 images, not 2, class 'dog' of validation has 0 "
            "images, not 2",
        ),
        (
            _moved("train/cat/image_0001.jpg", "train/cat/renamed.jpg"),
            "each class has as many images as before, but a name or a size is another",
        ),
        (
            lambda root: (root / "val/cat/image_0001.jpg").open("ab").write(b"\0"),
            "each class has as many images as before, but a name or a size is another",
        ),
    ],
)
def test_a_change_is_named(root, change, named):
    before = _of(root)
    change(root)
    assert describe_change(before, _of(root)) == named


def test_many_changes_are_not_all_named(root, write_classes):
    before = _of(root)
    for part in ("train", "val", "test"):
        write_classes(root / part, "cat dog", count=6)
    assert describe_change(before, _of(root)).endswith("has 6 images, not 4, and 4 more differ")


def test_another_root_of_the_same_files_is_a_change(tmp_path, write_classes):
    """Labels and the order of parts count, not only the set of files."""
    paths = sorted(write_classes(tmp_path, "cat dog").rglob("*.jpg"))
    images = ImageFiles(paths, [0, 0, 1, 1], ["cat", "dog"], root=tmp_path)
    swapped = ImageFiles(paths, [1, 1, 0, 0], ["cat", "dog"], root=tmp_path)
    digests = {
        fingerprint(parts)["sha256"]
        for parts in (
            {"train": images, "test": images.subset([0])},
            {"train": swapped, "test": images.subset([0])},
            {"train": images.subset([0]), "test": images},
            {"train": images.subset([1, 0, 2, 3]), "test": images.subset([0])},
        )
    }
    assert len(digests) == 4


def test_the_sentence_of_a_run_that_had_other_images(root):
    before = _of(root)
    check_same_images(before, _of(root), "runs/x")
    _added(root)
    with pytest.raises(UserError) as raised:
        check_same_images(before, _of(root), "runs/x")
    assert str(raised.value) == (
        "The run in runs/x was started with other images: class 'cat' of train has 5 images, not "
        "4; give --resume the images that it was started with, or start another with --output."
    )
    for damaged in (None, [], {}, {"sha256": 1}, {"images": 3}):
        with pytest.raises(UserError, match=r"run\.json does not say which they were"):
            check_same_images(damaged, _of(root), "runs/x")


def test_images_in_memory_are_told_by_their_bytes_and_labels():
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3), dtype=np.uint8)
    other = array.copy()
    other[2, 3, 4, 2] ^= 1
    digests = [
        fingerprint({"train": DecodedImages(values, labels, ["a", "b"])})["sha256"]
        for values, labels in [(array, [0, 1, 0]), (array.copy(), [0, 1, 0]), (other, [0, 1, 0]),
                               (array, [0, 1, 1]), (array[:, :, ::-1], [0, 1, 0])]
    ]  # fmt: skip
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4


def test_60000_images_of_cifar_take_less_than_a_second():
    images = DecodedImages(np.ones((60_000, 32, 32, 3), np.uint8), [0, 1] * 30_000, ["a", "b"])
    started = time.process_time()
    found = fingerprint({"train": images})
    assert time.process_time() - started < 1
    assert found["images"] == {"train": {"a": 30_000, "b": 30_000}}


def test_the_embedded_set_has_one_for_every_seed():
    first, second = (load_splits("emoji_domains", seed=seed).fingerprint for seed in (0, 1))
    assert first == second
    assert sum(first["images"]["train"].values()) == 2463
