"""`core-tuning sweep list`: the definitions that are shipped."""

from __future__ import annotations

from core_tuning.options import Parser

from .definition import load_sweep, sweep_names


def main(argv: list[str]) -> int:
    """Print each sweep's name, number of runs and title."""
    Parser(
        prog="core-tuning sweep list",
        description="List the sweeps: each stands for a table or figure of the paper. Each is a "
        "short TOML file; 'core-tuning sweep run' also takes the path of one's own.",
        allow_abbrev=False,
    ).parse_args(argv)
    sweeps = [load_sweep(name) for name in sweep_names()]
    width = max(len(sweep.name) for sweep in sweeps)
    for sweep in sweeps:
        print(f"{sweep.name:<{width}}  {len(sweep.runs):>4} runs  {sweep.title}")
    return 0
