"""Core-tuning for domain generalisation: DomainBed's algorithms and a runner without DomainBed.

Nothing heavy is imported before a name is used: the import hook that `core-tuning domainbed
enable` installs passes through here whenever Python starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core_tuning.lazy import lazy_names

if TYPE_CHECKING:
    from .algorithm import CECon, CETuning, CoreTuning
    from .registration import register

__getattr__ = lazy_names(
    __name__,
    {
        "CoreTuning": "algorithm",
        "CECon": "algorithm",
        "CETuning": "algorithm",
        "register": "registration",
    },
)
__all__ = ["CECon", "CETuning", "CoreTuning", "register"]
