"""The progress bar of a run: step, time left, and the loss terms."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_READINGS = 1.0


class Progress:
    """A bar over all optimiser steps; its figures are read from the device once a second.

    Args:
        steps: of the whole run.
        done: steps that an earlier process took.
        label: in front of the bar.
    """

    def __init__(self, steps: int, done: int, label: str) -> None:
        self.bar = tqdm(
            total=steps, initial=done, desc=label, unit="step", mininterval=0.5, file=sys.stderr
        )
        self.next_reading = 0.0

    def advance(self) -> bool:
        """Count one step; True if it is time to read the loss terms."""
        self.bar.update()
        now = time.monotonic()
        if now < self.next_reading:
            return False
        self.next_reading = now + SECONDS_BETWEEN_READINGS
        return True

    def show(self, **figures: float) -> None:
        """Show figures behind the bar."""
        self.bar.set_postfix(
            {name: f"{value:.3f}" for name, value in figures.items()}, refresh=False
        )

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
