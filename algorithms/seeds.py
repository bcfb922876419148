"""DomainBed's way of making a seed out of several values."""

from __future__ import annotations

import hashlib


def seed_hash(*values: object) -> int:
    """Return the 31-bit seed that DomainBed derives from `values`: splits and random
    hyper-parameters are its own only where seeds are."""
    digest = hashlib.md5(str(values).encode()).digest()
    return int.from_bytes(digest, "big") % 2**31
