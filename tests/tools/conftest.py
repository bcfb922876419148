"""The scripts of tools/ import each other by bare name, as they do when run."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def import_tool():
    """Import a script of tools/ by name."""

    def load(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(TOOLS)
            return importlib.import_module(name)

    return load
