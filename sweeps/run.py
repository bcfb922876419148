"""`core-tuning sweep run NAME`: make the runs that are not finished yet."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .folder import SweepFolder, start_sweep, state_of
from .launchers import LAUNCHERS, check_installed
from .options import parse, wanted_sweep
from .places import Place
from .processes import sigterm_as_exit

_STOPPED = "core-tuning: stopped; the same command goes on with it."


def main(argv: list[str]) -> int:
    """Run the command; return 1 if a run failed or could not be made, else 0."""
    options = parse(argv)
    place = place_of(options)
    sweep = wanted_sweep(options)
    folder = start_sweep(options.output, sweep)
    return make_runs(folder, [run.id for run in sweep.runs], options.launcher, place)


def place_of(options: argparse.Namespace) -> Place:
    """Check and return where the options of a launcher say to make runs."""
    check_installed(options.launcher)
    return Place(options.workers, options.slurm, options.ray_address)


def make_runs(folder: SweepFolder, ids: Sequence[str], launcher: str, place: Place) -> int:
    """Make those of the runs that are neither finished nor failed; say how all stand.

    Args:
        folder: of the sweep.
        ids: of the runs.
        launcher: a key of `LAUNCHERS`.
        place: where.

    Returns:
        1 if one of the runs has failed or is not finished, 130 after Ctrl-C, else 0.
    """
    before = state_of(folder, ids)
    wanted = set(before.remaining) | set(before.running)
    if wanted:
        with sigterm_as_exit():
            try:
                LAUNCHERS[launcher].launch(folder, [id for id in ids if id in wanted], place)
            except KeyboardInterrupt:
                print(_STOPPED, file=sys.stderr)
                return 130
            except SystemExit:
                print(_STOPPED, file=sys.stderr)
                raise
    return report(folder, ids)


def report(folder: SweepFolder, ids: Sequence[str]) -> int:
    """Print how runs stand, the failed ones with their last line; return the exit code."""
    state = state_of(folder, ids)
    open_runs = len(state.remaining) + len(state.running)
    print(
        f"{folder.title}: {len(state.done)} of {len(ids)} runs are finished, "
        f"{len(state.failed)} failed, {open_runs} are not finished; {folder.path}"
    )
    for id, said in state.failed.items():
        print(f"  failed: {folder.runs[id].title} ({id}): {said}", file=sys.stderr)
    if state.failed:
        print(
            "core-tuning: the whole output of a run is in logs/; 'core-tuning sweep retry' makes "
            "failed ones again.",
            file=sys.stderr,
        )
    return 1 if state.failed or open_runs else 0
