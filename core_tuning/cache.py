"""Where what is unpacked or fetched once is kept."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "CORE_TUNING_CACHE"


def cache_folder() -> Path:
    """Return $CORE_TUNING_CACHE, else $XDG_CACHE_HOME/core-tuning, else ~/.cache/core-tuning."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "core-tuning"
