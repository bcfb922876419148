"""Files that a kill leaves whole, that say where they are damaged, and that one process holds.

Whatever cannot be written or read is a UserError that names the file.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from .errors import UserError, shown

LOCK = ".lock"
# A killed process's loaders hold its lock until they have noticed.
PATIENCE_SECONDS = 5.0
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says of a file that cannot be written into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}): make room or give yourself "
            "the right to write there, or name another folder with --output; what was written "
            "before is whole."
        ) from error


def write_atomically(path: Path, contents: bytes | memoryview) -> None:
    """Write a file that is either whole or as it was before.

    Raises:
        UserError: it cannot be written; nothing is left behind.
    """
    # A name of its own, so that two processes do not write into one another's.
    temporary = path.with_name(_unfinished(path, uuid4().hex))
    with writing(path):
        try:
            with temporary.open("xb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _unfinished(path: Path, part: str) -> str:
    """Name of a file while it is written; with "*" as its own part, a pattern of all such."""
    return f".{path.name[:100]}.{part}.tmp"


def remove_unfinished(path: Path) -> None:
    """Remove what a kill has left of writing a file, of which no other process may be in the midst.

    Args:
        path: of the file; its name may be a pattern.
    """
    for temporary in path.parent.glob(_unfinished(path, "*")):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, contents: Any) -> None:
    """Write a JSON file."""
    write_atomically(path, (json.dumps(contents, indent=2) + "\n").encode())


def csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    """Return a table as csv, with an apostrophe before what a spreadsheet takes for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[harmless_cell(cell) for cell in row] for row in rows])
    return text.getvalue().encode(errors="backslashreplace")


def harmless_cell(cell: Any) -> Any:
    """Return a csv cell, text that begins like a formula behind an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add a line to a file of JSON lines; where the disk is full, the file is left as it was."""
    with writing(path):
        size = path.stat().st_size if path.exists() else 0
        try:
            with path.open("ab") as file:
                file.write((json.dumps(line) + "\n").encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Once it is closed, because what is left in the buffer is written then.
            if path.exists():
                os.truncate(path, size)
            raise


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Replace a file of JSON lines."""
    write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        UserError: it is missing, cut, not JSON, or another value than an object.
    """
    return _parse(_read(path), f"{path}")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return a file's JSON lines without a last one that a kill cut short; none if it is missing.

    Raises:
        UserError: another line is damaged.
    """
    if not path.exists():
        return []
    whole = _read(path).split(b"\n")[:-1]
    return [_parse(line, f"line {number} of {path}") for number, line in enumerate(whole, start=1)]


def _read(path: Path) -> bytes:
    require_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check the path and its rights."
        ) from error


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        contents = json.loads(text.decode())
    # Nested too deeply, for Python's stack, it is damage all the same.
    except (ValueError, RecursionError) as error:
        raise damaged(where, error) from error
    if not isinstance(contents, dict):
        raise damaged(where, f"it holds a {type(contents).__name__}, not a dict")
    return contents


def damaged(where: object, reason: object) -> UserError:
    """The mistake that a file which this package wrote does not hold what it wrote."""
    return UserError(
        f"{where} is damaged ({reason}): expected what this package writes; restore the file, or "
        "start again in another folder."
    )


def field(contents: dict[str, Any], name: str, kind: type | tuple[type, ...], path: Path) -> Any:
    """Return a value of a JSON object that this package wrote to `path`.

    Raises:
        UserError: it is missing or of another type.
    """
    value = contents.get(name)
    # JSON's true is not a number, whatever Python says.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        # In quotes, a text is told from the number that it looks like.
        said = repr(value) if isinstance(value, str) else value
        raise damaged(path, f"'{name}' is {shown(said, 60)}")
    return value


def require_file(path: Path) -> None:
    """Check that a path is an ordinary file, before opening it: a pipe would be waited on for ever.

    Raises:
        UserError: it is missing, a folder, a pipe or a device, or its name cannot be one.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise UserError(f"The file {path} does not exist: check the path.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise UserError(
            f"The file {str(path)[:200]!r} cannot be read ({reason}): check the path."
        ) from error
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UserError(f"{path} is {what}: expected an ordinary file; name one.")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder: no other process that asks for it writes there meanwhile.

    The kernel gives the lock back when this process is gone, however it ended.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    lock = FileLock(folder / LOCK, timeout=PATIENCE_SECONDS)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"Another process is at work in {folder}: wait until it has ended, or name another "
            "folder with --output."
        ) from None
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"The folder {folder} cannot be locked ({error}), without which two processes might "
            "write into it: name another with --output."
        ) from error
    try:
        yield
    finally:
        lock.release()
