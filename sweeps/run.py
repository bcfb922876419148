"""`core-tuning sweep list`, `run` and `retry`: make the runs that are not finished yet."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

from core_tuning.errors import UserError

from . import config
from .cost import cost_of
from .expand import Sweep, load_sweep
from .folder import SweepFolder, open_sweep, start_sweep, state_of
from .launch import (
    HELD,
    HELD_SECONDS,
    Job,
    Place,
    check_installed,
    launch,
    sigterm_as_exit,
)
from .plan import Run
from .progress import Tally, duration, expected_seconds
from .reading import parse_definition, sweep_names

DEFAULT_TFLOPS = 30.0
_STOPPED = "core-tuning: stopped; the same command goes on with it."


def list_sweeps(options: config.List) -> None:
    """Print each sweep's name, number of runs and title."""
    sweeps = [load_sweep(name) for name in sweep_names()]
    width = max(len(sweep.name) for sweep in sweeps)
    for sweep in sweeps:
        print(f"{sweep.name:<{width}}  {len(sweep.runs):>4} runs  {sweep.title}")


def main(options: config.Run) -> int:
    """Run the command; return 1 if a run failed or could not be made, else 0."""
    check_installed(options.launcher)
    sweep = load_sweep(
        options.name,
        seeds=options.seeds,
        small=options.small,
        settings=options.settings,
        only=options.kept,
    )
    if options.dry_run:
        print(describe(sweep, options))
        return 0
    folder = start_sweep(options.path, sweep)
    return make_runs(folder, [run.id for run in sweep.runs], options.launcher, options.place)


def retry(options: config.Retry) -> int:
    """Run the command; return 1 if a run failed again or could not be made, else 0.

    Raises:
        UserError: one of the runs that are asked for has not failed; nothing was changed.
    """
    check_installed(options.launcher)
    folder = open_sweep(options.path)
    failed = list(state_of(folder).failed)
    for id in options.ids:
        if id not in failed:
            known = ", ".join(failed) or "none"
            raise UserError(
                f"'{id}' is not a failed run of {folder.path}: expected of these: {known}."
            )
    ids = list(dict.fromkeys(options.ids or failed))
    if not ids:
        print(f"{folder.title}: no run has failed; {folder.path}")
        return 0
    for id in ids:
        # Another retry may be quicker.
        folder.failure_path(id).unlink(missing_ok=True)
    return make_runs(folder, ids, options.launcher, options.place)


def make_runs(folder: SweepFolder, ids: Sequence[str], launcher: str, place: Place) -> int:
    """Make those of the runs that are neither finished nor failed; say how all stand.

    Args:
        folder: of the sweep.
        ids: of the runs.
        launcher: a key of `launch.LAUNCHERS`.
        place: where.

    Returns:
        1 if one of the runs has failed or is not finished, 130 after Ctrl-C, else 0.
    """
    before = state_of(folder, ids)
    wanted = set(before.remaining) | set(before.running)
    if wanted:
        with sigterm_as_exit():
            try:
                _launch(folder, [id for id in ids if id in wanted], launcher, place)
            except KeyboardInterrupt:
                print(_STOPPED, file=sys.stderr)
                return 130
            except SystemExit:
                print(_STOPPED, file=sys.stderr)
                raise
    return report(folder, ids)


def _launch(folder: SweepFolder, ids: Sequence[str], launcher: str, place: Place) -> None:
    place = replace(place, name=folder.name, output=str(folder.path / "slurm"))
    jobs = [
        Job(
            id,
            "core_tuning.sweeps.job",
            (str(folder.path), id),
            log=str(folder.log_path(id)),
            resumes=True,
        )
        for id in ids
    ]
    tally = Tally(len(jobs))
    ended: list[str] = []
    seconds: dict[str, float] = {}
    runs = [folder.runs[id] for id in ids]
    with closing(launch(launcher, jobs, place, folder.is_running)) as outcomes:
        for id, outcome in outcomes:
            # On a cluster, of a run that another process is making.
            while outcome == HELD and folder.is_running(id):
                time.sleep(HELD_SECONDS)
            ended.append(id)
            if folder.is_done(id):
                seconds[id] = folder.read_progress(id)["seconds"]
                how, what = "done", duration(seconds[id])
            elif folder.has_failed(id):
                how, what = "failed", folder.read_failure(id)
            else:
                how, what = "stopped", _why(outcome, folder, id)
            share = _share_ended(runs, ended, seconds)
            tally.say(f"{how} {folder.runs[id].title} ({id}): {what}", share)


def _why(outcome: int | str, folder: SweepFolder, id: str) -> str:
    if isinstance(outcome, str):
        return outcome
    how = f"was killed by signal {-outcome}" if outcome < 0 else f"ended with exit code {outcome}"
    return f"its process {how}, see {folder.log_path(id)}"


def _share_ended(
    runs: Sequence[Run], ended: Sequence[str], seconds: dict[str, float]
) -> float | None:
    """Share of all runs' seconds, as they are expected, that the ended ones take."""
    if not seconds:
        return None
    expected = expected_seconds(runs, [run for run in runs if run.id in seconds], seconds)
    return sum(expected[id] for id in ended) / (sum(expected.values()) or 1) or None


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


def describe(sweep: Sweep, options: config.Run) -> str:
    """The runs with their commands, as a shell takes them, and the cost of those that are left."""
    lines, left = [], []
    for run in sweep.runs:
        folder = options.path / "runs" / run.id
        finished = (folder / run.done).exists()
        lines.append(f"{run.id}  {run.title}{' (finished)' if finished else ''}")
        for argv in run.argvs(str(folder)):
            lines.append(f"    {shlex.join(['core-tuning', *argv])}")
        if not finished:
            left.append(run)
    cost = cost_of(left)
    machine = parse_definition(sweep.definition, sweep.name, sweep.name).machine
    unit = machine.get("unit", "GPU") if options.tflops is None else "GPU"
    tflops = options.tflops or machine.get("tflops", DEFAULT_TFLOPS)
    hours = cost.hours(tflops)
    lines.append(f"{sweep.title}: {len(left)} of {len(sweep.runs)} runs are left.")
    if cost.unknown < len(left) or not left:
        text = (
            f"Estimated cost: {cost.flop:.2g} floating-point operations, {hours:.3g} {unit} hours "
            f"at {tflops:g} TFLOP/s"
        )
        if options.price is not None:
            text += f", ${hours * options.price:,.2f} at ${options.price:g} an hour"
        lines.append(text + ".")
    if cost.unknown:
        lines.append(
            f"Not in it: {cost.unknown} runs whose data set or encoder the estimate does not know."
        )
    return "\n".join(lines)
