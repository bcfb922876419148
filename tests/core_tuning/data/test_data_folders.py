import os

import pytest

from core_tuning.data import load_domains, load_splits
from core_tuning.errors import UserError


def test_train_and_val(tmp_path, write_classes):
    write_classes(tmp_path / "train", count=10)
    write_classes(tmp_path / "val", count=3, suffix="png")
    splits = load_splits("folder", tmp_path, validation=0.2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (16, 4, 6)
    assert (splits.classes, splits.split, splits.warnings) == (
        ["ant", "bee"],
        "folder train/val",
        [],
    )
    image, label = splits.test[5]
    assert (image.mode, label, splits.test.labels) == ("RGB", 1, [0, 0, 0, 1, 1, 1])


def test_test_stands_for_val(tmp_path, write_classes):
    write_classes(tmp_path / "train", count=10)
    write_classes(tmp_path / "test", count=3)
    splits = load_splits("folder", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 6)


def test_all_three_folders(tmp_path, write_classes):
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        write_classes(tmp_path / name, count=count)
    splits = load_splits("folder", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 4, 6)
    assert splits.split == "folder train/val/test"


def test_hidden_files_are_no_images(tmp_path, write_classes, write_image):
    for name in ("train", "val"):
        write_classes(tmp_path / name)
        write_image(tmp_path / name / ".cache" / "x.jpg")
        write_image(tmp_path / name / "ant" / ".thumbnail.jpg")
        (tmp_path / name / "ant" / "notes.txt").write_text("not an image")
    assert len(load_splits("folder", tmp_path, validation=0).train) == 4


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Validation"])
def test_known_names_of_the_validation_images(tmp_path, write_classes, name):
    write_classes(tmp_path / "train", count=10)
    write_classes(tmp_path / name, count=3)
    splits = load_splits("folder", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (18, 2, 6)
    assert splits.split == f"folder train/{name}"
    write_classes(tmp_path / "test", count=4)
    splits = load_splits("folder", tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 6, 8)
    assert splits.split == f"folder train/{name}/test"
    assert splits.warnings == []


def test_training_and_testing(tmp_path, write_classes):
    write_classes(tmp_path / "Training", count=5)
    write_classes(tmp_path / "testing", count=3)
    splits = load_splits("folder", tmp_path, validation=0)
    assert (len(splits.train), len(splits.test)) == (10, 6)
    assert splits.split == "folder Training/testing"


@pytest.mark.parametrize(
    ("names", "part"),
    [(("val", "valid"), "validation"), (("dev", "Dev"), "validation"), (("train", "training"),
     "train"), (("test", "testing"), "test")],
)  # fmt: skip
def test_two_folders_of_one_part(tmp_path, write_classes, names, part):
    for name in {"train", "test", *names}:
        write_classes(tmp_path / name)
    first, second = sorted(names)
    with pytest.raises(
        UserError,
        match=f"both '{first}' and '{second}', two names of the {part} images: join",
    ):
        load_splits("folder", tmp_path)


def test_other_folders_beside_train_are_named(tmp_path, write_classes):
    for name in ("train", "val", "extra", "unlabelled", ".git"):
        write_classes(tmp_path / name)
    assert load_splits("folder", tmp_path).warnings == [
        f"The folder {tmp_path} also holds 'extra', 'unlabelled', not used: the names of parts are "
        "train or training; val or valid or validation or dev; test or testing."
    ]


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "two\nlines", "\x1b[31mred"])
def test_names_of_classes_that_no_table_can_hold(tmp_path, write_classes, name):
    for part in ("train", "val"):
        write_classes(tmp_path / part)
        (tmp_path / part / "ant").rename(tmp_path / part / name)
    for load in (lambda: load_splits("folder", tmp_path), lambda: load_domains(tmp_path)):
        with pytest.raises(UserError, match=r"train has the class '.*', whose name") as raised:
            load()
        assert str(raised.value).isprintable()
    (tmp_path / "val").rename(tmp_path / name)
    with pytest.raises(UserError, match=r"has the class '.*', whose name"):
        load_domains(tmp_path)


def test_folders_whose_names_are_too_long_or_of_nobody():
    with pytest.raises(UserError, match=r"The folder xxx.*\.\.\.xxx.* does not exist: expected"):
        load_splits("folder", "x" * 5000)
    with pytest.raises(UserError, match=r"The folder ~nobody-at-all/x does not exist: expected"):
        load_splits("folder", "~nobody-at-all/x")


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"The folder .*gone does not exist: expected train/class"):
        load_splits("folder", tmp_path / "gone")


def test_root_is_a_file(tmp_path, write_image):
    with pytest.raises(UserError, match=r"x\.jpg is a file: expected"):
        load_splits("folder", write_image(tmp_path / "x.jpg"))


@pytest.mark.parametrize(("present", "missing"), [("val", "train"), ("train", "val")])
def test_missing_split(tmp_path, write_classes, present, missing):
    write_classes(tmp_path / present)
    with pytest.raises(UserError, match=f"has no folder '{missing}': expected train/class"):
        load_splits("folder", tmp_path)


def test_class_folders_without_splits(tmp_path, write_classes):
    write_classes(tmp_path)
    with pytest.raises(UserError, match="has no folder 'train': expected train/class"):
        load_splits("folder", tmp_path)


def test_empty_class_folder(tmp_path, write_classes):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "val")
    (tmp_path / "train" / "wasp").mkdir()
    with pytest.raises(
        UserError,
        match=r"class folder .*train/wasp has no images: add files .* \.jpg, .*, or remove",
    ):
        load_splits("folder", tmp_path)


def test_no_images(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name / "ant").mkdir(parents=True)
    with pytest.raises(
        UserError,
        match=r"no images in class folders: expected class/\*, files .* \.jpg,",
    ):
        load_splits("folder", tmp_path)


def test_one_class_only(tmp_path, write_classes):
    write_classes(tmp_path / "train", "ant")
    write_classes(tmp_path / "val", "ant")
    with pytest.raises(UserError, match=r"train has one class only \('ant'\): expected two"):
        load_splits("folder", tmp_path)


def test_classes_differ_between_splits(tmp_path, write_classes):
    write_classes(tmp_path / "train", "ant bee")
    write_classes(tmp_path / "val", "ant wasp")
    with pytest.raises(UserError, match=r"val and .*it lacks 'bee' and has 'wasp' besides; every"):
        load_splits("folder", tmp_path)


def test_many_different_classes_are_not_all_listed(tmp_path, write_classes):
    write_classes(tmp_path / "train", "a b c d e f g h", count=1)
    write_classes(tmp_path / "val", "a", count=1)
    with pytest.raises(UserError, match=r"lacks 'b', 'c', 'd', 'e', 'f' and 2 more;"):
        load_splits("folder", tmp_path)


def test_domain_layout_is_recognised(tmp_path, write_classes):
    write_classes(tmp_path / "photo")
    write_classes(tmp_path / "sketch")
    with pytest.raises(UserError, match=r"holds domains \(photo, sketch\).*leave-one-domain-out"):
        load_splits("folder", tmp_path)


def test_domains_of_the_embedded_set():
    domains = load_domains("emoji_domains")
    assert {name: len(images) for name, images in domains.items()} == {
        "fluent": 889,
        "mono": 609,
        "noto": 893,
        "twemoji": 893,
    }
    assert {len(images.classes) for images in domains.values()} == {10}


def test_domains_of_a_folder(tmp_path, write_classes):
    write_classes(tmp_path / "PACS" / "art", count=1)
    write_classes(tmp_path / "PACS" / "photo", count=2)
    for domains in (load_domains("PACS", tmp_path), load_domains(tmp_path / "PACS")):
        assert {name: images.labels for name, images in domains.items()} == {
            "art": [0, 1],
            "photo": [0, 0, 1, 1],
        }


def test_domain_errors(tmp_path, write_classes):
    with pytest.raises(UserError, match=r"VLCS does not exist: expected domain/class"):
        load_domains("VLCS", tmp_path)
    write_classes(tmp_path / "set" / "photo", "ant bee")
    with pytest.raises(UserError, match=r"set has 1 domains: expected domain/class"):
        load_domains(tmp_path / "set")
    write_classes(tmp_path / "set" / "sketch", "ant wasp")
    with pytest.raises(UserError, match=r"sketch and .*differ in their classes: it lacks 'bee'"):
        load_domains(tmp_path / "set")
