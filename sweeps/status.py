"""`core-tuning sweep status NAME`: how the runs of a sweep stand."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.parser import Parser

from .folder import State, SweepFolder, open_sweep, state_of
from .watching import duration

# Enough to see what is wrong; the rest is counted.
MOST_FAILURES = 20
# Clears a terminal and moves to its upper left corner.
_CLEAR = "\x1b[2J\x1b[H"


# fmt: off
def build_parser() -> Parser:
    """Options of `core-tuning sweep status`."""
    parser = Parser(
        prog="core-tuning sweep status",
        description="Say what is done, running, failed and left, and how long that takes.",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="of the sweep")
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="the sweep's folder; default: runs/sweep-NAME")
    parser.add_argument("--price", type=float, metavar="DOLLARS", help="of a GPU hour")
    parser.add_argument("--watch", action="store_true",
                        help="show it again and again until nothing is left to do")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS",
                        help="between two looks of --watch (default: 5)")
    return parser


# fmt: on
def main(argv: list[str]) -> int:
    """Run the command; return 0 whatever the runs' state is."""
    options = build_parser().parse_args(argv)
    if options.price is not None and not 0 <= options.price < math.inf:
        raise UserError(f"--price is {options.price}: expected dollars of at least 0.")
    if not 0 < options.every < math.inf:
        raise UserError(f"--every is {options.every}: expected seconds above 0.")
    path = options.output or Path("runs") / f"sweep-{Path(options.name).stem}"
    while True:
        # Read anew, because another process may add runs.
        folder = open_sweep(path)
        state = state_of(folder)
        start = _CLEAR if options.watch and sys.stdout.isatty() else ""
        print(start + describe(folder, state, options.price), flush=True)
        if not options.watch or not (state.running or state.remaining):
            return 0
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
        *_time_left(state, price),
        *(f"  running: {folder.runs[id].title} ({id})" for id in state.running),
    ]
    shown = list(state.failed.items())[:MOST_FAILURES]
    lines += [f"  failed: {folder.runs[id].title} ({id}): {said}" for id, said in shown]
    if len(state.failed) > len(shown):
        lines.append(f"  and {len(state.failed) - len(shown)} more failed")
    return "\n".join(lines)


def _time_left(state: State, price: float | None) -> list[str]:
    left = len(state.remaining) + len(state.running)
    if not left:
        return []
    if not state.seconds:
        return ["  time left  unknown until a run has finished"]
    mean = sum(state.seconds.values()) / len(state.seconds)
    at_once = max(1, len(state.running))
    # A run that is being made counts whole: how far it is is its own affair.
    lines = [
        f"  time left  about {duration(math.ceil(left / at_once) * mean)}, {at_once} at the same "
        f"time, {duration(mean)} a run"
    ]
    hours = left * mean / 3600
    cost = "" if price is None else f", ${hours * price:,.2f} at ${price:g} an hour"
    lines.append(f"  GPU hours  {hours:.3g} left{cost}, at one GPU a run")
    return lines
