"""`core-tuning sweep retry NAME [ID ...]`: make failed runs again."""

from __future__ import annotations

import argparse

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .folder import SweepFolder, open_sweep, state_of
from .options import add_launcher, add_output, parse
from .run import make_runs, place_of


# fmt: off
def build_parser() -> Parser:
    """Options of `core-tuning sweep retry`."""
    parser = Parser(
        prog="core-tuning sweep retry",
        description="Make failed runs again; each goes on from its last checkpoint (those of "
        "DomainBed's own script begin anew).",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", help="of the sweep")
    parser.add_argument("ids", nargs="*", metavar="ID", help="of failed runs (default: all)")
    add_output(parser)
    add_launcher(parser)
    return parser


# fmt: on
def main(argv: list[str]) -> int:
    """Run the command; return 1 if a run failed again or could not be made, else 0."""
    # Ids may stand behind options, as in 'retry NAME --output DIR ID'.
    options = build_parser().parse_intermixed_args(argv)
    # The launcher's options are checked as those of 'run' are, whose parser knows them all.
    checked = parse(_as_run(options))
    place = place_of(checked)
    folder = open_sweep(checked.output)
    ids = forget_failures(folder, options.ids)
    if not ids:
        print(f"{folder.title}: no run has failed; {folder.path}")
        return 0
    return make_runs(folder, ids, options.launcher, place)


def forget_failures(folder: SweepFolder, ids: list[str]) -> list[str]:
    """Take failed runs, all if `ids` is empty, for such as were never made; return their ids.

    Raises:
        UserError: one of `ids` has not failed; nothing was changed.
    """
    failed = list(state_of(folder).failed)
    for id in ids:
        if id not in failed:
            known = ", ".join(failed) or "none"
            raise UserError(
                f"'{id}' is not a failed run of {folder.path}: expected of these: {known}."
            )
    chosen = list(dict.fromkeys(ids or failed))
    for id in chosen:
        # Another retry may be quicker.
        folder.failure_path(id).unlink(missing_ok=True)
    return chosen


def _as_run(options: argparse.Namespace) -> list[str]:
    arguments = [options.name, "--launcher", options.launcher]
    for flag, value in (
        ("--output", options.output),
        ("--workers", options.workers),
        ("--ray-address", options.ray_address),
    ):
        if value is not None:
            arguments.append(f"{flag}={value}")
    return [*arguments, "--slurm", *options.slurm] if options.slurm else arguments
