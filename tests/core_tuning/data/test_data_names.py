"""Names from the disk in messages, and as names of classes."""

from __future__ import annotations

import os

import pytest

from core_tuning.data.names import check_class_names, listed, shown
from core_tuning.errors import UserError

GOOD = [
    "cat",
    "Ärger",
    "日本",
    "a b",
    "full\u3000width",
    "=1+1",
    "$x$",
    "a,b\"c'",
    "🐈‍⬛",
    "n" * 255,
]
BAD = [os.fsdecode(b"caf\xe9"), "a\nb", "a\rb", "\x1b[31m", "a\tb", "x\x00", "a\u2028b", "\x85"]


@pytest.mark.parametrize("name", GOOD)
def test_good_names(name):
    check_class_names([name], "The folder x")
    assert shown(name) == name or len(name) == 255


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_and_shown_escaped(name):
    with pytest.raises(UserError) as raised:
        check_class_names(["cat", name], "The folder x")
    sentence = str(raised.value)
    assert sentence.startswith("The folder x has the class '")
    assert sentence.isascii() and sentence.isprintable()


def test_escapes():
    assert shown(os.fsdecode(b"caf\xe9/\n.jpg")) == "caf\\xe9/\\x0a.jpg"
    assert shown("a\u2028b") == "a\\u2028b"


def test_long_names_are_shortened():
    assert shown("x" * 240) == "x" * 240
    assert len(shown("a" + "x" * 5000 + "b")) == 243
    assert shown("a" + "x" * 5000 + "b")[0::242] == "ab"


def test_a_list_of_names():
    assert listed("ab") == "'a', 'b'"
    assert listed("abcdefg", limit=2) == "'a', 'b' and 5 more"
