"""What is no image that can be read is found before training."""

from __future__ import annotations

import os
import socket
import time

import pytest
from PIL import Image

from core_tuning.cache import cache_folder
from core_tuning.data import load_splits, scan
from core_tuning.data.images import read_image
from core_tuning.errors import UserError


@pytest.fixture
def root(tmp_path, write_classes):
    for part in ("train", "val"):
        write_classes(tmp_path / "data" / part, "cat dog", 4)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Because tests make the same images again and again."""
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "cache"))


def _socket(path):
    # Its name may have 107 bytes only.
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


NO_FILES = {
    "a FIFO": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "No such file or directory": lambda path: path.symlink_to("gone.jpg"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize("headers", [True, False])
def test_what_is_no_file_is_refused_with_and_without_a_scan(root, what, headers):
    NO_FILES[what](root / "train/cat/x.jpg")
    with pytest.raises(
        UserError, match=rf"^1 of 9 images cannot be used: .*train/cat/x\.jpg \(.*{what}"
    ):
        load_splits("folder", root, scan=headers)
    with pytest.raises(UserError, match=what):
        read_image(root / "train/cat/x.jpg")


def _text(path):
    path.write_text("not an image")


def _float(path):
    Image.new("F", (4, 4), 0.5).save(path, "TIFF")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text, "it is not an image of a known format"),
        (lambda path: path.touch(), "it is not an image of a known format"),
        (_float, r"its pixels are of mode F \(floating-point numbers\), whose range is not known"),
    ],
)
def test_a_bad_header_is_found_by_the_scan_alone(root, make, reason):
    make(root / "val/dog/x.jpg")
    assert len(load_splits("folder", root).test) == 9
    with pytest.raises(UserError, match=rf"val/dog/x\.jpg \({reason}.*; replace or remove them"):
        load_splits("folder", root, scan=True)


def test_the_first_faults_are_named_and_the_others_counted(root):
    for number in range(10):
        _text(root / "train/cat" / f"bad{number}.jpg")
    with pytest.raises(UserError) as raised:
        load_splits("folder", root, scan=True)
    reason = "(it is not an image of a known format)"
    folder = root / "train/cat"
    assert str(raised.value) == (
        f"10 of 26 images cannot be used: {folder}/bad0.jpg {reason}, {folder}/bad1.jpg {reason}, "
        f"{folder}/bad2.jpg {reason} and 7 more; replace or remove them; --no-scan leaves this "
        "check out."
    )


def test_images_that_have_passed_are_not_looked_at_again(root, monkeypatch):
    load_splits("folder", root, scan=True)
    looked = []
    check = scan._check_header
    monkeypatch.setattr(scan, "_check_header", lambda path: (looked.append(path), check(path)))
    load_splits("folder", root, scan=True)
    assert looked == []
    Image.new("RGB", (9, 9)).save(root / "train/cat/new.png")
    load_splits("folder", root, scan=True)
    assert len(looked) == 17


def test_a_failed_scan_is_not_remembered(root):
    _text(root / "train/cat/bad.jpg")
    for _ in range(2):
        with pytest.raises(UserError, match=r"bad\.jpg"):
            load_splits("folder", root, scan=True)


def test_a_cache_that_cannot_be_written_is_no_hindrance(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load_splits("folder", root, scan=True).test) == 8


def test_nothing_is_decoded(root, monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", refuse)
    assert len(load_splits("folder", root, scan=True).test) == 8
    assert len(list((cache_folder() / "scanned").iterdir())) == 1


@pytest.mark.slow
def test_50000_files_take_less_than_10_seconds(tmp_path, write_image):
    first = write_image(tmp_path / "first.jpg", size=224)
    for part in ("train", "val"):
        for number in range(25_000):
            path = tmp_path / "data" / part / f"class{number % 20}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(first, path)
    started = time.monotonic()
    load_splits("folder", tmp_path / "data", scan=True)
    assert time.monotonic() - started < 10
