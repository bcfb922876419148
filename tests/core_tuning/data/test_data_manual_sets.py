import json
from collections import Counter
from pathlib import Path

import pytest

from core_tuning.data import load_splits
from core_tuning.errors import UserError


def test_emoji_domains():
    splits = load_splits("emoji_domains")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2217, 246, 821)
    assert splits.classes == [
        "animal",
        "building",
        "clothing",
        "face",
        "food",
        "hand",
        "person",
        "plant",
        "tool",
        "vehicle",
    ]
    assert splits.warnings == []
    image, label = splits.test[0]
    assert (image.size, image.mode, label) == ((48, 48), "RGB", splits.test.labels[0])
    strata = Counter(Path(path).parts[-3:-1] for path in splits.test.paths)
    assert strata["noto", "animal"] in (32, 33)
    assert len(strata) == 40


def test_emoji_domains_test_set_is_the_same_for_every_seed():
    first, second = (load_splits("emoji_domains", seed=seed, fraction=0.1) for seed in (1, 2))
    assert first.test.paths == second.test.paths
    assert first.train.paths != second.train.paths
    assert not set(first.train.paths + first.validation.paths) & set(first.test.paths)


def test_flowers_kaggle(tmp_path, write_classes):
    write_classes(tmp_path / "train", "1 2 10", count=4)
    write_classes(tmp_path / "valid", "1 2 10", count=1)
    splits = load_splits("flowers_kaggle", tmp_path, validation=0.25)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (9, 3, 3)
    assert splits.classes == ["1", "2", "10"]
    assert splits.test.paths[2].endswith("valid/10/image_0001.jpg")
    assert "prints 6,552" in splits.warnings[1]


def test_flowers_kaggle_errors(tmp_path, write_classes):
    write_classes(tmp_path / "train", "1 2")
    with pytest.raises(UserError, match=r"valid does not exist: expected class folders 1 to 102"):
        load_splits("flowers_kaggle", tmp_path)
    write_classes(tmp_path / "valid", "1 2")
    write_classes(tmp_path / "train", "rose")
    with pytest.raises(UserError, match=r"train/rose is not numbered: expected train/1"):
        load_splits("flowers_kaggle", tmp_path)


@pytest.mark.parametrize("variant", ["", "-320", "-160"])
def test_imagenet20(tmp_path, write_classes, variant):
    for part, count in (("train", 3), ("val", 1)):
        write_classes(tmp_path / f"imagenette2{variant}" / part, "n03 n01", count)
        write_classes(tmp_path / f"imagewoof2{variant}" / part, "n02 n01", count)
    splits = load_splits("imagenet20", tmp_path, validation=0)
    assert splits.classes == ["n01", "n02", "n03"]
    assert splits.train.labels == [0] * 6 + [1] * 3 + [2] * 3
    assert splits.test.labels == [0, 0, 1, 2]
    assert splits.split == f"imagenette2{variant} and imagewoof2{variant} train/val"


def test_imagenet20_errors(tmp_path, write_classes):
    write_classes(tmp_path / "imagenette2" / "train")
    write_classes(tmp_path / "imagewoof2-320" / "train")
    with pytest.raises(UserError, match=r"not hold Imagenette and Imagewoof in one size: expected"):
        load_splits("imagenet20", tmp_path)
    write_classes(tmp_path / "imagewoof2" / "train")
    write_classes(tmp_path / "imagenette2" / "val")
    write_classes(tmp_path / "imagewoof2" / "val", "ant wasp")
    with pytest.raises(UserError, match=r"differ in their classes: it has 'wasp' besides"):
        load_splits("imagenet20", tmp_path)


def _competition(root, name, samples, **changes):
    content = {
        "images": [{"id": i, "file_name": file} for i, (file, _) in enumerate(samples)],
        "annotations": [{"image_id": i, "category_id": c} for i, (_, c) in enumerate(samples)],
        "categories": [{"id": 3, "name": "Ficus"}, {"id": 7, "name": "Rosa"}],
    }
    (root / name).write_text(json.dumps(content | changes))


def test_inat18(tmp_path, write_image):
    train = [(f"train_val2018/Plantae/{c}/{n}.jpg", c) for c in (7, 3) for n in "ab"]
    for name, _ in train:
        write_image(tmp_path / name)
    _competition(tmp_path, "train2018.json", train)
    _competition(tmp_path, "val2018.json", [("train_val2018/Plantae/7/b.jpg", 7)])
    splits = load_splits("inat18", tmp_path, validation=0)
    assert (splits.classes, splits.train.labels) == (["Ficus", "Rosa"], [1, 1, 0, 0])
    image, label = splits.test[0]
    assert (image.size, label) == ((8, 8), 1)
    assert "8,142" in splits.warnings[0]


def test_inat18_errors(tmp_path):
    with pytest.raises(UserError, match=r"train2018\.json does not exist: check"):
        load_splits("inat18", tmp_path)
    _competition(tmp_path, "val2018.json", [("b.jpg", 7)])
    (tmp_path / "train2018.json").write_text("{")
    with pytest.raises(UserError, match=r"train2018\.json is not JSON"):
        load_splits("inat18", tmp_path)
    _competition(tmp_path, "train2018.json", [("a.jpg", 3)], images=[])
    with pytest.raises(UserError, match=r"train2018\.json is not laid out as the competition's"):
        load_splits("inat18", tmp_path)
    _competition(tmp_path, "train2018.json", [])
    with pytest.raises(UserError, match=r"train2018\.json has no images"):
        load_splits("inat18", tmp_path)
    _competition(tmp_path, "train2018.json", [("a.jpg", 3)])
    with pytest.raises(UserError, match=r"val2018\.json has the category 7, of which .*has no"):
        load_splits("inat18", tmp_path)


DAMAGED = {
    "cut": b'{"images": [{"id": 0, "file_na',
    "NULs": b"\0" * 60,
    "empty": b"",
    "binary": bytes(range(256)),
    "deeply nested": b"[" * 100_000,
    "a huge number": b'{"images": ' + b"1" * 5000 + b"}",
}
OF_ANOTHER_TYPE = {
    "a list": [],
    "text": "images",
    "null": None,
    "images of text": {"images": "x", "annotations": []},
    "images of numbers": {"images": [1], "annotations": []},
    "no annotations": {"images": []},
    "an unhashable id": {"images": [{"id": [], "file_name": "a.jpg"}], "annotations": []},
    "an annotation of no image": {
        "images": [], "annotations": [{"image_id": 1, "category_id": 1}],
    },
    "a number for a file": {
        "images": [{"id": 1, "file_name": 7}],
        "annotations": [{"image_id": 1, "category_id": 1}],
    },
    "text for a category": {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "category_id": "1"}],
    },
    "a category without a name": {"images": [], "annotations": [], "categories": [{"id": 1}]},
    "categories of numbers": {"images": [], "annotations": [], "categories": [3]},
}  # fmt: skip


@pytest.mark.parametrize("which", ["train2018.json", "val2018.json"])
@pytest.mark.parametrize("damage", [*DAMAGED, *OF_ANOTHER_TYPE])
def test_damaged_lists_of_inat18(tmp_path, write_image, which, damage):
    write_image(tmp_path / "b.jpg")
    for name in ("train2018.json", "val2018.json"):
        _competition(tmp_path, name, [("b.jpg", 7)])
    contents = DAMAGED.get(damage) or json.dumps(OF_ANOTHER_TYPE.get(damage)).encode()
    (tmp_path / which).write_bytes(b"" if damage == "empty" else contents)
    expected = "is not JSON" if damage in DAMAGED else "is not laid out as the competition's"
    with pytest.raises(UserError, match=rf"{which} {expected} \(.+\): ") as raised:
        load_splits("inat18", tmp_path)
    assert str(raised.value).isprintable()


def test_missing_files_of_inat18_are_named(tmp_path, write_image):
    write_image(tmp_path / "b.jpg")
    _competition(tmp_path, "train2018.json", [("b.jpg", 7), *((f"{n}.jpg", 7) for n in range(9))])
    _competition(tmp_path, "val2018.json", [("b.jpg", 7)])
    with pytest.raises(
        UserError,
        match=r"^9 of 10 images cannot be used: .*/0\.jpg \(No such file or directory\), .* and 6 "
        r"more; restore",
    ):
        load_splits("inat18", tmp_path)
    for name in ("nul\0.jpg", "\ud800.jpg"):
        _competition(tmp_path, "train2018.json", [(name, 7)])
        with pytest.raises(UserError, match=r"^1 of 1 image cannot be used: ") as raised:
            load_splits("inat18", tmp_path)
        assert str(raised.value).isprintable()


def test_category_names_that_no_table_can_hold(tmp_path, write_image):
    write_image(tmp_path / "b.jpg")
    names = [{"id": 7, "name": "two\nlines"}]
    for name in ("train2018.json", "val2018.json"):
        _competition(tmp_path, name, [("b.jpg", 7)], categories=names)
    with pytest.raises(UserError, match=r"json has the class 'two\\x0alines', whose name holds"):
        load_splits("inat18", tmp_path)
