import hashlib
import pickle
import shutil

import numpy as np
import pytest
import scipy.io
from torchvision import datasets

from core_tuning.data import load_splits
from core_tuning.errors import UserError


def _md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar_root(tmp_path, monkeypatch):
    """Pickles of 20 training and 10 test images with their checksums in place of the real ones."""
    for dataset, folder, meta, key, names, label in (
        (datasets.CIFAR10, "cifar-10-batches-py", "batches.meta", "label_names", 10, "labels"),
        (datasets.CIFAR100, "cifar-100-python", "meta", "fine_label_names", 100, "fine_labels"),
    ):
        base = tmp_path / folder
        base.mkdir()
        for file, count in (("train", 20), ("test", 10)):
            data = np.arange(count, dtype=np.uint8)[:, None].repeat(3072, axis=1)
            content = {"data": data, label: [i % 10 for i in range(count)]}
            (base / file).write_bytes(pickle.dumps(content))
        (base / meta).write_bytes(pickle.dumps({key: [f"class {i}" for i in range(names)]}))
        monkeypatch.setattr(dataset, "train_list", [["train", _md5(base / "train")]])
        monkeypatch.setattr(dataset, "test_list", [["test", _md5(base / "test")]])
        monkeypatch.setattr(
            dataset, "meta", {"filename": meta, "key": key, "md5": _md5(base / meta)}
        )
    return tmp_path


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_cifar(cifar_root, name, classes):
    splits = load_splits(name, cifar_root, validation=0.5)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (10, 10, 10)
    assert len(splits.classes) == classes
    image, label = splits.test[7]
    assert (image.size, image.getpixel((0, 0)), label) == ((32, 32), (7, 7, 7), 7)
    assert splits.warnings == [
        f"{name} (torchvision train/test) has 20 images in the train split where Table 10 of the "
        "paper prints 50,000.",
        f"{name} (torchvision train/test) has 10 images in the test split where Table 10 of the "
        "paper prints 10,000.",
    ]
    assert len(pickle.loads(pickle.dumps(splits)).train) == 10


def test_corrupt_cifar(cifar_root):
    (cifar_root / "cifar-10-batches-py" / "train").write_bytes(b"cut off")
    with pytest.raises(UserError, match=r"'cifar10' cannot be read from .* \(Dataset not found or"):
        load_splits("cifar10", cifar_root)


@pytest.fixture
def dtd_root(tmp_path, write_image):
    labels = tmp_path / "dtd" / "dtd" / "labels"
    labels.mkdir(parents=True)
    for split, numbers in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        names = [f"{name}/{name}_{n}.jpg" for name in ("banded", "dotted") for n in numbers]
        (labels / f"{split}1.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write_image(tmp_path / "dtd" / "dtd" / "images" / name)
    return tmp_path


def test_dtd(dtd_root):
    splits = load_splits("dtd", dtd_root, validation=0)
    assert splits.train.labels == [0, 0, 1, 1, 0, 1]
    assert (splits.test.labels, splits.classes) == ([0, 1], ["banded", "dotted"])
    assert splits.split == "torchvision trainval/test, partition 1"
    assert splits.train[0][0].size == (8, 8)


def test_dtd_classes_differ(dtd_root):
    labels = dtd_root / "dtd" / "dtd" / "labels"
    (labels / "test1.txt").write_text("banded/banded_1.jpg\nwoven/woven_1.jpg\n")
    with pytest.raises(UserError, match=r"test images of 'dtd' and .* differ.*lacks 'dotted' and"):
        load_splits("dtd", dtd_root)


def test_dtd_labels_file_missing(dtd_root):
    (dtd_root / "dtd" / "dtd" / "labels" / "val1.txt").unlink()
    with pytest.raises(UserError, match=r"it lacks .*val1\.txt\): .*--download fetches"):
        load_splits("dtd", dtd_root)


def test_dtd_malformed_labels_file(dtd_root):
    (dtd_root / "dtd" / "dtd" / "labels" / "val1.txt").write_text("no slash\n")
    with pytest.raises(UserError, match=r"'dtd' cannot be read from .*not enough values"):
        load_splits("dtd", dtd_root)


@pytest.fixture
def aircraft_root(tmp_path, write_image):
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    data.mkdir(parents=True)
    (data / "variants.txt").write_text("A 300\nB 52\n")
    (data / "images_variant_trainval.txt").write_text("1 A 300\n2 B 52\n")
    (data / "images_variant_test.txt").write_text("3 B 52\n")
    for number in (1, 2, 3):
        write_image(data / "images" / f"{number}.jpg")
    return tmp_path


def test_aircraft(aircraft_root):
    splits = load_splits("aircraft", aircraft_root, validation=0)
    assert (splits.train.labels, splits.test.labels) == ([0, 1], [1])
    assert splits.classes == ["A 300", "B 52"]
    assert splits.test[0][1] == 1


@pytest.fixture
def pets_root(tmp_path, write_image):
    base = tmp_path / "oxford-iiit-pet"
    annotations = base / "annotations"
    annotations.mkdir(parents=True)
    (annotations / "trainval.txt").write_text("Abyssinian_1 1 1 1\nbeagle_1 2 2 1\n")
    (annotations / "test.txt").write_text("Abyssinian_2 1 1 1\nbeagle_2 2 2 1\n")
    for breed in ("Abyssinian", "beagle"):
        for number in (1, 2):
            write_image(base / "images" / f"{breed}_{number}.jpg")
    return tmp_path


def test_pets(pets_root):
    splits = load_splits("pets", pets_root, validation=0)
    assert (splits.train.labels, splits.test.labels) == ([0, 1], [0, 1])
    assert splits.classes == ["Abyssinian", "Beagle"]
    assert splits.warnings[-1].endswith("so the paper's is a misprint.")
    assert splits.train[0][0].mode == "RGB"


@pytest.fixture
def flowers_root(tmp_path, write_image, monkeypatch):
    base = tmp_path / "flowers-102"
    for number in range(1, 7):
        write_image(base / "jpg" / f"image_{number:05d}.jpg")
    scipy.io.savemat(base / "imagelabels.mat", {"labels": [1, 2, 1, 2, 1, 2]})
    scipy.io.savemat(base / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6]})
    checksums = {
        "label": ("imagelabels.mat", _md5(base / "imagelabels.mat")),
        "setid": ("setid.mat", _md5(base / "setid.mat")),
    }
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", checksums)
    return tmp_path


def test_flowers(flowers_root):
    splits = load_splits("flowers", flowers_root, validation=0)
    assert (splits.train.labels, splits.test.labels) == ([0, 1, 0, 1], [0, 1])
    assert len(splits.classes) == 102
    assert splits.split == "torchvision train+val/test, not Kaggle's split"
    assert "flowers_kaggle" in splits.warnings[0]
    assert splits.test[1][1] == 1


@pytest.fixture
def cars_root(tmp_path, write_image):
    base = tmp_path / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for split in ("train", "test"):
        for number in (1, 2):
            write_image(base / f"cars_{split}" / f"{number:05d}.jpg")
    fields = [("fname", "O"), ("class", "O")]
    annotations = np.array([("00001.jpg", 1), ("00002.jpg", 2)], dtype=fields)
    for path in ("devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"):
        scipy.io.savemat(base / path, {"annotations": annotations})
    names = np.array(["AM General Hummer", "Acura RL"], dtype=object)
    scipy.io.savemat(base / "devkit" / "cars_meta.mat", {"class_names": names})
    return tmp_path


def test_cars(cars_root):
    splits = load_splits("cars", cars_root, validation=0)
    assert (splits.train.labels, splits.test.labels) == ([0, 1], [0, 1])
    assert splits.classes == ["AM General Hummer", "Acura RL"]
    assert splits.test[1][0].size == (8, 8)


def test_cars_without_the_test_labels(cars_root):
    (cars_root / "stanford_cars" / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"'cars' cannot.*cars_test_annos_withlabels.mat") as raised:
        load_splits("cars", cars_root)
    assert "--download" not in str(raised.value)


def test_caltech101(tmp_path, write_classes, write_image):
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    write_classes(folder, "BACKGROUND_Google accordion airplanes", count=34)
    splits = load_splits("caltech101", tmp_path, validation=0, seed=1)
    assert [splits.train.labels.count(label) for label in range(3)] == [30, 30, 30]
    assert [splits.test.labels.count(label) for label in range(3)] == [4, 4, 4]
    assert splits.classes[0] == "BACKGROUND_Google"
    assert splits.split == "30 a class drawn with seed 0/the rest"
    assert splits.test.paths == load_splits("caltech101", tmp_path, seed=2).test.paths


def test_caltech101_missing(tmp_path):
    with pytest.raises(UserError, match=r"101_ObjectCategories does not exist: .*--download"):
        load_splits("caltech101", tmp_path)


def test_failed_download(tmp_path, monkeypatch):
    from urllib.error import URLError

    def no_network(self):
        raise URLError("no network")

    monkeypatch.setattr(datasets.DTD, "_download", no_network)
    with pytest.raises(
        UserError, match=r"'dtd' could not be downloaded into .*\(no network\): che"
    ):
        load_splits("dtd", tmp_path, download=True)


@pytest.mark.parametrize("name", ["cifar10", "dtd", "aircraft", "pets", "flowers"])
def test_empty_root(tmp_path, name):
    with pytest.raises(UserError, match=rf"'{name}' cannot be read from .*--download fetches"):
        load_splits(name, tmp_path)


LISTS = {
    "dtd": ("dtd/dtd/labels", "train1.txt", "val1.txt", "test1.txt"),
    "aircraft": (
        "fgvc-aircraft-2013b/data",
        "variants.txt", "images_variant_trainval.txt", "images_variant_test.txt",
    ),
    "pets": ("oxford-iiit-pet/annotations", "trainval.txt", "test.txt"),
    "flowers": ("flowers-102", "imagelabels.mat", "setid.mat"),
    "cars": (
        "stanford_cars",
        "devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat",
    ),
}  # fmt: skip
DAMAGES = {
    "cut": lambda contents: contents[: len(contents) // 3],
    "empty": lambda contents: b"",
    "NULs": lambda contents: b"\0" * len(contents),
    "binary": lambda contents: bytes(range(256)) * 3,
    "of another type": lambda contents: b'{"a": [1, 2]}\n',
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", LISTS)
def test_a_damaged_list_is_a_sentence(name, damage, request):
    root = request.getfixturevalue(f"{name}_root")
    load_splits(name, root, validation=0)
    folder, *files = LISTS[name]
    for file in files:
        path = root / folder / file
        contents = path.read_bytes()
        path.write_bytes(DAMAGES[damage](contents))
        with pytest.raises(UserError) as raised:
            load_splits(name, root, validation=0)
        assert str(raised.value).isprintable()
        assert str(raised.value).endswith(".")
        path.write_bytes(contents)


def test_labels_of_no_class(cars_root):
    annotations = np.array([("00001.jpg", 1), ("00002.jpg", 9)],
                           dtype=[("fname", "O"), ("class", "O")])  # fmt: skip
    path = cars_root / "stanford_cars" / "devkit" / "cars_train_annos.mat"
    scipy.io.savemat(path, {"annotations": annotations})
    with pytest.raises(UserError, match=r"^'cars' has train images of none of its 2 classes: unp"):
        load_splits("cars", cars_root, validation=0)


def test_an_image_that_a_list_names_is_missing(pets_root):
    (pets_root / "oxford-iiit-pet" / "images" / "beagle_2.jpg").unlink()
    with pytest.raises(
        UserError, match=r"^1 of 2 images cannot be used: .*beagle_2\.jpg \(No such file"
    ):
        load_splits("pets", pets_root, validation=0)


def test_a_fingerprint_is_that_of_the_paths_below_the_root(dtd_root, tmp_path_factory):
    copy = tmp_path_factory.mktemp("copy") / "somewhere else"
    shutil.copytree(dtd_root, copy)
    first, second = (load_splits("dtd", root).fingerprint for root in (dtd_root, copy))
    assert first == second
    assert first["images"]["train"] == {"banded": 3, "dotted": 3}
    assert first["images"]["test"] == {"banded": 1, "dotted": 1}
