import multiprocessing
import time
import zipfile
from pathlib import Path

import pytest

from core_tuning.data import load_splits
from core_tuning.data.embedded import emoji_domains_folder, unpack
from core_tuning.errors import UserError


def _zip(path: Path, text: str = "one") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(50):
            archive.writestr(f"set/{number}.txt", text)
    return path


def _contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


WHOLE = {f"set/{number}.txt": "one" for number in range(50)}


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
    assert len(list((tmp_path / "cache").rglob("*"))) == 2 * 52


def test_two_processes_at_once(tmp_path):
    archive = _zip(tmp_path / "set.zip")
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        folders = pool.starmap(unpack, [(archive, tmp_path / "cache")] * 4, chunksize=1)
    assert len(set(folders)) == 1
    assert len(list((folders[0] / "set").iterdir())) == 50


def _damage(folder: Path) -> None:
    for number in range(0, 50, 3):
        (folder / f"set/{number}.txt").unlink()
    (folder / "set/1.txt").write_text("")
    (folder / "set/2.txt").write_text("one and more")


def test_what_a_cache_has_lost_is_unpacked_again(tmp_path):
    archive = _zip(tmp_path / "set.zip")
    folder = unpack(archive, tmp_path / "cache")
    kept = (folder / "set/49.txt").stat()
    _damage(folder)
    assert unpack(archive, tmp_path / "cache") == folder
    assert _contents(folder) == WHOLE
    assert (folder / "set/49.txt").stat() == kept


def test_processes_that_mend_a_cache_at_once(tmp_path):
    archive = _zip(tmp_path / "set.zip")
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        for _ in range(5):
            folder = unpack(archive, tmp_path / "cache")
            _damage(folder)
            assert set(pool.starmap(unpack, [(archive, tmp_path / "cache")] * 6, 1)) == {folder}
            assert _contents(folder) == WHOLE


def test_a_kill_in_the_middle_leaves_whole_files(tmp_path, monkeypatch):
    archive = _zip(tmp_path / "set.zip")
    replace = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if target.name == "20.txt":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", stop)
        unpack(archive, tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    assert _contents(folder) == {f"set/{number}.txt": "one" for number in range(20)}
    unpack(archive, tmp_path / "cache")
    assert _contents(folder) == WHOLE


def test_a_whole_cache_is_used_though_it_cannot_be_written(tmp_path, monkeypatch):
    archive = _zip(tmp_path / "set.zip")
    folder = unpack(archive, tmp_path / "cache")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("mkdir", "write_bytes", "touch", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    assert unpack(archive, tmp_path / "cache") == folder
    (folder / "set/7.txt").unlink()
    with pytest.raises(UserError, match=r"cannot be unpacked into .*cache \(Permission denied\)"):
        unpack(archive, tmp_path / "cache")


def test_a_file_that_does_not_belong_to_the_set(tmp_path):
    archive = _zip(tmp_path / "set.zip")
    folder = unpack(archive, tmp_path / "cache")
    (folder / "set/.DS_Store").touch()
    assert unpack(archive, tmp_path / "cache") == folder
    (folder / "set/own.txt").touch()
    with pytest.raises(UserError, match=r"not belong to the data set \(set/own\.txt\): delete"):
        unpack(archive, tmp_path / "cache")


def test_every_image_is_trained_on_after_a_cleaner(tmp_path, monkeypatch):
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path))
    for path in sorted(emoji_domains_folder().glob("*/*/*.webp"))[::3]:
        path.unlink()
    splits = load_splits("emoji_domains")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (2217, 246, 821)


def test_checking_the_set_takes_less_than_50_ms():
    emoji_domains_folder()
    times = []
    for _ in range(3):
        started = time.process_time()
        emoji_domains_folder()
        times.append(time.process_time() - started)
    assert min(times) < 0.05


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CORE_TUNING_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"unpacked into .*file/cache .*set CORE_TUNING_CACHE to"):
        emoji_domains_folder()
