import multiprocessing
import zipfile
from pathlib import Path

import pytest

from core_tuning.data import embedded
from core_tuning.data.embedded import emoji_domains_folder, unpack
from core_tuning.errors import UserError


def _zip(path: Path, text: str = "one") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(50):
            archive.writestr(f"set/{number}.txt", text)
    return path


def test_the_embedded_set_has_its_images():
    folder = emoji_domains_folder()
    assert len(list(folder.glob("*/*/*.webp"))) == 3284
    assert (folder / "noto" / "animal").is_dir()


def test_an_upgraded_zip_is_unpacked_again(tmp_path):
    first = unpack(_zip(tmp_path / "set.zip", "one"), tmp_path / "cache")
    second = unpack(_zip(tmp_path / "set.zip", "two"), tmp_path / "cache")
    assert first != second
    assert (first / "set/0.txt").read_text() == "one"
    assert (second / "set/0.txt").read_text() == "two"
    assert not list((tmp_path / "cache").glob(".unpacking-*"))


def test_two_processes_at_once(tmp_path):
    archive = _zip(tmp_path / "set.zip")
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        folders = pool.starmap(unpack, [(archive, tmp_path / "cache")] * 4, chunksize=1)
    assert len(set(folders)) == 1
    assert len(list((folders[0] / "set").iterdir())) == 50


def test_the_slower_process_keeps_the_faster_ones_folder(tmp_path, monkeypatch):
    archive = _zip(tmp_path / "set.zip")
    rename = embedded._rename_unless_there

    def rename_late(unpacked: Path, target: Path) -> None:
        (target / "set").mkdir(parents=True)
        (target / "set" / "faster.txt").touch()
        rename(unpacked, target)

    monkeypatch.setattr(embedded, "_rename_unless_there", rename_late)
    folder = unpack(archive, tmp_path / "cache")
    assert [path.name for path in (folder / "set").iterdir()] == ["faster.txt"]
    assert not list((tmp_path / "cache").glob(".unpacking-*"))


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"unpacked into .*file/cache .*set CORE_TUNING_CACHE to"):
        emoji_domains_folder()
