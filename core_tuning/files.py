"""Files that a kill leaves whole: written under another name, flushed and renamed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


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


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return a file's JSON lines, none if it is missing; a last one cut short is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    """Replace a file of JSON lines."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    write_atomically(path, text.encode())
