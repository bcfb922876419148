"""Files that a kill leaves whole: written under another name, flushed and renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .errors import UserError


def write_atomically(path: Path, contents: bytes | memoryview) -> None:
    """Write a file that is either whole or not there."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Add a line to a file of JSON lines."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path, kind: type = dict) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: it is missing, cut, not JSON, or its outermost value is no `kind`.
    """
    return _parse(_read(path), path, kind)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return a file's JSON lines, none if it is missing; a last one cut short is left out.

    Raises:
        UserError: another line is damaged.
    """
    if not path.exists():
        return []
    whole = _read(path).split(b"\n")[:-1]
    return [
        _parse(line, path, dict, f"line {number} of ") for number, line in enumerate(whole, start=1)
    ]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror or error}): check the path and its rights."
        ) from error


def _parse(text: bytes, path: Path, kind: type, where: str = "") -> Any:
    try:
        contents = json.loads(text.decode())
    # Nested too deeply, for Python's stack, it is damage all the same.
    except (ValueError, RecursionError) as error:
        raise _damaged(path, where, str(error) or type(error).__name__) from error
    if not isinstance(contents, kind):
        raise _damaged(path, where, f"it holds a {type(contents).__name__}, not a {kind.__name__}")
    return contents


def _damaged(path: Path, where: str, reason: str) -> UserError:
    return UserError(
        f"{where}{path} is damaged ({reason}): expected what this package writes; restore the "
        "file, or start again in another folder."
    )


def field(contents: dict[str, Any], name: str, kind: type | tuple[type, ...], path: Path) -> Any:
    """Return a value of a JSON object that this package wrote to `path`.

    Raises:
        UserError: it is missing or of another type.
    """
    value = contents.get(name)
    # JSON's true is no number, whatever Python says.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _damaged(path, "", f"'{name}' is {value!r}"[:80])
    return value


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Replace a file of JSON lines."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(path, text.encode())
