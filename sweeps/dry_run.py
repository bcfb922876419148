"""`core-tuning sweep run NAME --dry-run`: the runs, their commands and estimated cost."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from .arguments import FOLDER
from .cost import cost_of
from .definition import Run, Sweep
from .options import parse, wanted_sweep
from .reading import parse_definition

DEFAULT_TFLOPS = 30.0


def main(argv: list[str]) -> int:
    """Run the command; nothing is written."""
    options = parse(argv)
    sweep = wanted_sweep(options)
    left = []
    for run in sweep.runs:
        folder = options.output / "runs" / run.id
        finished = (folder / run.done).exists()
        print(f"{run.id}  {run.title}{' (finished)' if finished else ''}")
        for line in command_lines(run, folder):
            print(f"    {line}")
        if not finished:
            left.append(run)
    print(_summary(sweep, left, options))
    return 0


def command_lines(run: Run, folder: Path) -> list[str]:
    """The commands of a run, as a shell takes them."""
    return [
        shlex.join(["core-tuning", *(str(folder) if word == FOLDER else word for word in step)])
        for step in run.steps
    ]


def _summary(sweep: Sweep, left: list[Run], options: argparse.Namespace) -> str:
    cost = cost_of(left)
    machine = parse_definition(sweep.definition, sweep.name, sweep.name).machine
    unit = machine.get("unit", "GPU") if options.tflops is None else "GPU"
    tflops = options.tflops or machine.get("tflops", DEFAULT_TFLOPS)
    hours = cost.hours(tflops)
    lines = [f"{sweep.title}: {len(left)} of {len(sweep.runs)} runs are left."]
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
