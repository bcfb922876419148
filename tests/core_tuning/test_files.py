"""Files: whole or as before, damage named, temporary files gone, one holder of a folder."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning import files
from core_tuning.errors import UserError
from core_tuning.files import (
    append_line,
    csv_bytes,
    field,
    held,
    read_json,
    read_lines,
    require_file,
    write_atomically,
    write_lines,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def full_disk(monkeypatch):
    """From now on nothing is flushed: the device has no room."""

    def refuse(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def test_a_full_disk_keeps_the_old_file_and_no_temporary_one(tmp_path, full_disk):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"file cannot be written \(No space left on device\)"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_a_file_of_lines_as_it_was(tmp_path, full_disk):
    path = tmp_path / "lines"
    path.write_text('{"step": 1}\n')
    with pytest.raises(UserError, match="No space left on device"):
        append_line(path, {"step": 2})
    assert path.read_text() == '{"step": 1}\n'
    with pytest.raises(UserError, match="No space left on device"):
        append_line(tmp_path / "new", {"step": 1})
    assert read_lines(tmp_path / "new") == []


def test_a_folder_that_is_gone(tmp_path):
    for write in (lambda: write_atomically(tmp_path / "gone" / "file", b""),
                  lambda: append_line(tmp_path / "gone" / "file", {})):  # fmt: skip
        with pytest.raises(UserError, match=r"gone/file cannot be written \(No such file"):
            write()


def test_the_file_of_another_is_never_taken_for_ones_own(tmp_path, monkeypatch):
    """Two processes that write the same file use temporary files of different names."""
    seen = []
    replace = Path.replace

    def note(path, target):
        seen.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", note)
    for _ in range(2):
        write_atomically(tmp_path / "file", b"")
    assert len(set(seen)) == 2


def test_rights_are_those_of_any_new_file(tmp_path):
    write_atomically(tmp_path / "file", b"")
    (tmp_path / "plain").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_as_long_as_the_system_allows(tmp_path):
    name = "n" * 255
    write_atomically(tmp_path / name, b"x")
    assert names(tmp_path) == [name]
    with pytest.raises(UserError, match="File name too long"):
        write_atomically(tmp_path / (name + "n"), b"x")
    assert names(tmp_path) == [name]


DEEP = "[" * 100_000
DAMAGED = {
    "empty": (b"", "is damaged"),
    "cut": (b'{"a": 1', "is damaged"),
    "NULs": (bytes(60), "is damaged"),
    "a list": (b"[]", "holds a list, not a dict"),
    "a number": (b"3", "holds a int, not a dict"),
    "not UTF-8": (b'{"a": "\xff"}', "is damaged"),
    "nested": (DEEP.encode(), "is damaged"),
    "a long number": (b'{"a": ' + b"1" * 5000 + b"}", "is damaged"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_json(tmp_path, name):
    contents, said = DAMAGED[name]
    path = tmp_path / "file.json"
    path.write_bytes(contents)
    with pytest.raises(UserError, match=said) as error:
        read_json(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", [name for name in DAMAGED if name not in ("nested",)])
def test_a_damaged_line_is_counted(tmp_path, name):
    path = tmp_path / "lines"
    path.write_bytes(b'{"step": 1}\n' + DAMAGED[name][0] + b'\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"line 2 of .*lines is damaged"):
        read_lines(path)


def test_a_last_line_without_its_end_is_left_out(tmp_path):
    path = tmp_path / "lines"
    write_lines(path, [{"step": 1}])
    with path.open("a") as file:
        file.write('{"step": 2}')
    assert read_lines(path) == [{"step": 1}]
    assert read_lines(tmp_path / "gone") == []


@pytest.mark.parametrize("value", [True, None, "1", [1], 1.0])
def test_a_field_of_another_type(tmp_path, value):
    with pytest.raises(UserError, match=r"file is damaged \('step' is .*\)"):
        field({"step": value}, "step", int, tmp_path / "file")
    with pytest.raises(UserError, match=r"'step' is None"):
        field({}, "step", int, tmp_path / "file")


def test_what_is_no_ordinary_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    require_file(tmp_path / "file")
    for path, said in (
        (tmp_path / "gone", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "is a pipe, a socket or a device"),
        (Path("/dev/zero"), "is a pipe, a socket or a device"),
        (tmp_path / ("n" * 300), "File name too long"),
        (tmp_path / "a\0b", "null"),
        (tmp_path / "file" / "below", "Not a directory"),
    ):
        with pytest.raises(UserError, match=said):
            require_file(path)


def test_a_table_holds_no_formula():
    rows = [["=1+1", "+1", "-1", "@x", "\tx", "plain"], [-1, 0.5, None, "a=b", "", "ü"]]
    text = csv_bytes(rows).decode()
    assert text == "'=1+1,'+1,'-1,'@x,'\tx,plain\n-1,0.5,,a=b,,ü\n"


def test_a_table_holds_names_that_are_not_utf_8():
    assert csv_bytes([[os.fsdecode(b"caf\xe9")]]) == b"caf\\udce9\n"


def test_a_folder_is_held_once_and_free_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE_SECONDS", 0.1)
    program = (
        "import sys; from pathlib import Path\n"
        "from core_tuning import files; files.PATIENCE_SECONDS = 0.1\n"
        "try:\n"
        "    with files.held(Path(sys.argv[1])): print('mine')\n"
        "except files.UserError as error: print(error)\n"
    )

    def other():
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with held(tmp_path):
        assert "Another process is at work in" in other()
    assert other() == "mine\n"
    with held(tmp_path):
        pass


def test_a_killed_holder_holds_nothing(tmp_path):
    program = (
        "import os, sys; from pathlib import Path\n"
        "from core_tuning.files import held\n"
        "with held(Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    with held(tmp_path):
        pass


def test_what_a_kill_left_of_a_file_is_removed_and_nothing_else(tmp_path):
    program = (
        "import os, sys; from pathlib import Path\n"
        "from core_tuning.files import write_atomically\n"
        "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
        "write_atomically(Path(sys.argv[1]), b'x')\n"
    )
    for name in ("step1.pkl", "step2.pkl", "config.json"):
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        assert subprocess.run(command, check=False).returncode == -9
    (tmp_path / ".step.tmp").touch()
    assert len(names(tmp_path)) == 4
    files.remove_unfinished(tmp_path / "step*.pkl")
    mine, config = names(tmp_path)[1], names(tmp_path)[0]
    assert mine == ".step.tmp"
    assert config.startswith(".config.json.")
    files.remove_unfinished(tmp_path / "config.json")
    assert names(tmp_path) == [".step.tmp"]


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.raises(UserError, match="cannot be locked"), held(tmp_path):
        pytest.fail("held")


def test_json_is_readable_text(tmp_path):
    files.write_json(tmp_path / "file", {"a": [1]})
    assert json.loads((tmp_path / "file").read_text()) == {"a": [1]}
