"""What a run shows while it goes on: a bar on a terminal, and a line an evaluation anywhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_READINGS = 1.0


class Progress:
    """A bar over all optimiser steps; its figures are read from the device once a second.

    Where stderr is not a terminal, as in a log, there are lines alone, with the time left.

    Args:
        steps: of the whole run.
        done: steps that an earlier process took.
        label: in front of the bar.
    """

    def __init__(self, steps: int, done: int, label: str) -> None:
        self.steps = steps
        self.done = self.first = done
        self.started = time.monotonic()
        self.bar = tqdm(
            total=steps, initial=done, desc=label, unit="step", mininterval=0.5, file=sys.stderr,
            disable=None,
        )  # fmt: skip
        self.next_reading = 0.0

    def advance(self) -> bool:
        """Count one step; True if it is time to read the loss terms."""
        self.bar.update()
        self.done += 1
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
        """Print a line, above the bar if there is one."""
        if self.bar.disable:
            print(f"step {self.done} of {self.steps}: {text}{self._left()}", file=sys.stderr)
        else:
            self.bar.write(f"step {self.done} of {self.steps}: {text}", file=sys.stderr)

    def _left(self) -> str:
        taken = self.done - self.first
        if not taken or self.done >= self.steps:
            return ""
        minutes = (time.monotonic() - self.started) / taken * (self.steps - self.done) / 60
        return f"; about {minutes:.1f} min left"

    def close(self) -> None:
        """Leave the bar as it stands."""
        self.bar.close()
