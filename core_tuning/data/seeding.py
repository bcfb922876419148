"""Generators that depend on nothing but numbers."""

from __future__ import annotations

import numpy as np

from ..errors import UserError


def seeded_generator(seed: int, *path: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the path below it only.

    `SeedSequence` mixes the numbers, so that neighbouring seeds or epochs share nothing.

    Raises:
        UserError: the seed is negative.
    """
    if seed < 0:
        raise UserError(f"The seed {seed} is negative: expected --seed 0 or more.")
    return np.random.default_rng(np.random.SeedSequence((seed, *path)))
