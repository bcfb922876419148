"""Write a definition, and read the one-sentence refusal of a command line."""

from __future__ import annotations

import pytest

from core_tuning.cli import main

ROWS = """\
title = "mine"
command = "finetune"
seeds = [0, 1]
rows = [
    { name = "CE", options = { method = "ce" } },
    { name = "Core-tuning", options = { method = "core_tuning" } },
]
"""


@pytest.fixture
def define(tmp_path):
    """Write rows of finetune, with more below them, into a file; return its path."""

    def write(more="", text=ROWS):
        path = tmp_path / "mine.toml"
        path.write_text(text + more)
        return str(path)

    return write


@pytest.fixture
def refused(capsys):
    """Run a command line that must end in one sentence and exit code 2; return the sentence."""

    def call(*arguments):
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("core-tuning: error: ")
        assert error.count("\n") == 1
        return error

    return call
