"""Core-tuning for domain generalisation: DomainBed's algorithms and a runner without DomainBed.

Nothing heavy is imported before a name is used: the import hook that `core-tuning domainbed
enable` installs passes through here whenever Python starts.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .algorithm import CECon, CETuning, CoreTuning
    from .registration import register

_MODULES = {
    "CoreTuning": "algorithm",
    "CECon": "algorithm",
    "CETuning": "algorithm",
    "register": "registration",
}
__all__ = ["CECon", "CETuning", "CoreTuning", "register"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
