import pytest

from core_tuning.data import DATASETS, load_splits
from core_tuning.data.catalogue import paper_sizes, size_warnings
from core_tuning.data.images import ImageFiles
from core_tuning.data.splits import Source
from core_tuning.errors import UserError

MANUAL = ("cars", "flowers_kaggle", "imagenet20", "inat18", "folder")
NEED_ROOT = [name for name in DATASETS if name != "emoji_domains"]


def test_unknown_data_set():
    with pytest.raises(UserError, match=r"Unknown data set 'cifar11'.*did you mean 'cifar10'"):
        load_splits("cifar11")


@pytest.mark.parametrize("name", NEED_ROOT)
def test_no_root(name):
    with pytest.raises(
        UserError, match=f"'{name}' needs a folder: give --data-dir FOLDER with"
    ) as raised:
        load_splits(name)
    assert ("--download" in str(raised.value)) == (name not in MANUAL)


@pytest.mark.parametrize("name", NEED_ROOT)
def test_missing_root(name, tmp_path):
    with pytest.raises(UserError, match=r"The folder .*gone does not exist: expected") as raised:
        load_splits(name, tmp_path / "gone")
    assert ("--download" in str(raised.value)) == (name not in MANUAL)


@pytest.mark.parametrize("name", MANUAL)
def test_no_download(name, tmp_path):
    with pytest.raises(UserError, match=f"'{name}' cannot be downloaded by torchvision: lay out"):
        load_splits(name, tmp_path, download=True)


def test_manual_layout_of_cars(tmp_path):
    with pytest.raises(UserError, match=r"cars_test_annos_withlabels\.mat, devkit/cars_meta\.mat"):
        load_splits("cars", tmp_path, download=True)


def test_embedded_set_takes_neither_root_nor_download(tmp_path):
    with pytest.raises(UserError, match=r"ships with the package: leave out --data-dir"):
        load_splits("emoji_domains", tmp_path)
    with pytest.raises(UserError, match=r"ships with the package: leave out --download"):
        load_splits("emoji_domains", download=True)


def _source(classes, train, test):
    def images(count):
        return ImageFiles(["x.jpg"] * count, [0] * count, [str(i) for i in range(classes)])

    return Source(images(train), images(test), "a split")


def test_no_warning_where_sizes_are_the_papers():
    for name, sizes in paper_sizes().items():
        if name != "inat18":
            assert size_warnings(name, _source(*sizes)) == []
    assert size_warnings("flowers_kaggle", _source(102, 6552, 818)) == []


def test_warnings_name_set_split_and_both_numbers():
    assert size_warnings("dtd", _source(46, 3759, 1880)) == [
        "dtd (a split) has 46 classes where Table 10 of the paper prints 47.",
        "dtd (a split) has 3,759 images in the train split where Table 10 of the paper prints "
        "3,760.",
    ]


def test_a_users_folder_is_not_checked():
    assert size_warnings("folder", _source(2, 1, 1)) == []
