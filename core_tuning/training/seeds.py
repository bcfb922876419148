"""Seeds: whatever a step draws at random follows from the run's seed and the step alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int) -> int:
    """Mix integers into one 63-bit seed; neighbouring inputs give unrelated seeds."""
    words = np.random.SeedSequence([len(parts), *parts]).generate_state(2, np.uint32)
    return (int(words[0]) << 31) ^ int(words[1])


def seed_everything(seed: int) -> None:
    """Seed the global generators, which initial weights and layers such as dropout draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def same_random_states() -> Iterator[None]:
    """Leave the global generators as they were, whatever is drawn inside."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
