"""`core-tuning sweep status NAME`: how the runs of a sweep stand."""

from __future__ import annotations

import math
import sys
import time

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .folder import State, SweepFolder, open_sweep, state_of
from .options import add_output, sweep_path
from .reading import what_it_runs
from .time_left import expected_seconds, makespan, spent_seconds
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
    add_output(parser)
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
    while True:
        # Read anew, because another process may add runs.
        folder = open_sweep(sweep_path(options))
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
