"""Names from the disk or a label file: shown in messages, and as names of classes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable

from ..errors import UserError

LONGEST_SHOWN = 240
# Control characters, bytes that are not UTF-8 (os.fsdecode's surrogates), and line separators.
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    code = ord(character)
    # os.fsdecode keeps a byte that is not UTF-8 as 0xDC00 and the byte.
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{code:04x}"


def shown(name: str | os.PathLike[str]) -> str:
    """Return a name for a message: on one line, printable anywhere, a very long one shortened."""
    text = "".join(map(_escaped, os.fspath(name)))
    half = LONGEST_SHOWN // 2
    return text if len(text) <= LONGEST_SHOWN else f"{text[:half]}...{text[-half:]}"


def listed(names: Iterable[str], limit: int = 5) -> str:
    """Return names in quotes, and how many more there are above a limit."""
    names = list(names)
    text = ", ".join(f"'{shown(name)}'" for name in names[:limit])
    left_out = len(names) - limit
    return f"{text} and {left_out} more" if left_out > 0 else text


def check_class_names(names: Iterable[str], where: str) -> None:
    """Check that names can stand in tables, results and figures.

    Args:
        names: of classes or domains.
        where: they come from, to begin a sentence: "The folder data/train".

    Raises:
        UserError: one holds a control character, or bytes that are not UTF-8.
    """
    for name in names:
        if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
            raise UserError(
                f"{where} has the class '{shown(name)}', whose name holds a control character or "
                "is not UTF-8: rename it, because results and tables name the classes."
            )
