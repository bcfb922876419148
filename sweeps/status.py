"""`core-tuning sweep status NAME`: how the runs of a sweep stand."""

from __future__ import annotations

import sys
import time

from .config import Status
from .folder import State, SweepFolder, open_sweep, state_of
from .progress import duration, expected_seconds, makespan, spent_seconds
from .reading import what_it_runs

# Enough to see what is wrong; the rest is counted.
MOST_FAILURES = 20
# Clears a terminal and moves to its upper left corner.
_CLEAR = "\x1b[2J\x1b[H"


def main(options: Status) -> None:
    """Run the command."""
    while True:
        # Read anew, because another process may add runs.
        folder = open_sweep(options.path)
        state = state_of(folder)
        start = _CLEAR if options.watch and sys.stdout.isatty() else ""
        print(start + describe(folder, state, options.price), flush=True)
        if not options.watch or not (state.running or state.remaining):
            return
        time.sleep(options.every)


def describe(folder: SweepFolder, state: State, price: float | None = None) -> str:
    """Return the table of a sweep's state.

    Args:
        folder: of the sweep.
        state: of all its runs.
        price: dollars of a GPU hour; None leaves dollars out.
    """
    lines = [
        f"{folder.title}: {len(folder.runs)} runs in {folder.path}",
        f"  done       {len(state.done):6}",
        f"  running    {len(state.running):6}",
        f"  failed     {len(state.failed):6}",
        f"  remaining  {len(state.remaining):6}",
        *_time_left(folder, state, price),
        *(f"  running: {folder.runs[id].title} ({id})" for id in state.running),
    ]
    shown = list(state.failed.items())[:MOST_FAILURES]
    lines += [f"  failed: {folder.runs[id].title} ({id}): {said}" for id, said in shown]
    if len(state.failed) > len(shown):
        lines.append(f"  and {len(state.failed) - len(shown)} more failed")
    return "\n".join(lines)


def _time_left(folder: SweepFolder, state: State, price: float | None) -> list[str]:
    # Those that are made now are the first to end.
    ids = [*state.running, *state.remaining]
    if not ids:
        return []
    if not state.seconds:
        return ["  time left  unknown until a run has finished"]
    runs = folder.runs
    expected = expected_seconds(
        (runs[id] for id in ids), (runs[id] for id in state.done), state.seconds
    )
    spent = spent_seconds(folder, state)
    left = [max(0.0, expected[id] - spent.get(id, 0.0)) for id in ids]
    at_once = max(1, len(state.running))
    lines = [
        f"  time left  about {duration(makespan(left, at_once))}, {at_once} at the same time, "
        f"{duration(sum(expected.values()) / len(ids))} a run"
    ]
    hours = sum(left) / 3600
    cost = "" if price is None else f", ${hours * price:,.2f} at ${price:g} an hour"
    # A run on the CPU has as many cores as the launcher gives it.
    on_gpu = "machine" not in what_it_runs(folder.definition)
    unit, each = ("GPU", ", at one GPU a run") if on_gpu else ("run", "")
    lines.append(f"  {unit} hours  {hours:.3g} left{cost}{each}")
    return lines
