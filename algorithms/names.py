"""Names and numbers that DomainBed fixes, and ours in it; imports no torch."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from core_tuning.methods import METHODS

ALGORITHMS = tuple(method.domainbed for method in METHODS.values())
CHECKPOINT_VARIABLE = "CORE_TUNING_CHECKPOINT"
EMOJI = "EmojiDomains"
DEBUG = ("Debug28", "Debug224")
# Steps of DomainBed's train.py where --steps is left out.
DOMAINBED_STEPS = 5001


class Layout(NamedTuple):
    """Where DomainBed keeps a data set, and how often it evaluates on it.

    Attributes:
        folder: inside the data folder.
        evaluate_every: steps between evaluations.
    """

    folder: str
    evaluate_every: int = 300


DATASETS = {
    EMOJI: Layout("emoji_domains"),
    "VLCS": Layout("VLCS"),
    "PACS": Layout("PACS"),
    "OfficeHome": Layout("office_home"),
    "TerraIncognita": Layout("terra_incognita"),
    "DomainNet": Layout("domain_net", 1000),
}


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that looks most like a mistyped one, whatever its case."""
    by_lower = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def seed_hash(*values: object) -> int:
    """Return the 31-bit seed that DomainBed derives from `values`: splits and random
    hyper-parameters are its own only where seeds are."""
    digest = hashlib.md5(str(values).encode()).digest()
    return int.from_bytes(digest, "big") % 2**31
