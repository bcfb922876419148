"""`core-tuning sweep report NAME`: finished runs beside the paper's numbers."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from core_tuning.errors import UserError
from core_tuning.options import Parser

from ..claims import Claim
from ..folder import SweepFolder, open_sweep
from ..options import add_output, sweep_path
from ..reading import check_sweep, is_toml, read_definition, sweep_names, what_it_runs

if TYPE_CHECKING:
    from .model import Report


class _Asked(NamedTuple):
    """Name of the report that is asked for, folder of its runs, and what reads them."""

    name: str
    place: Path
    read: Callable[[], Report]


# fmt: off
def build_parser() -> Parser:
    """Options of `core-tuning sweep report`."""
    parser = Parser(
        prog="core-tuning sweep report",
        description="Put what is finished of a sweep beside the paper's numbers: table.csv (cells: "
        "mean, standard error, 95% interval, number of runs, the paper's value, difference), "
        "values.csv (runs), table.tex, report.md, and report.html with its figures, which opens "
        "without a network. Runs that are missing are shown as missing, so it can be asked for "
        "while a sweep is running. A report that is there is replaced by the new one.",
        epilog="Examples: core-tuning sweep report table02; core-tuning sweep report --domainbed "
        "sweeps/table8 --to docs/table8",
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="NAME", nargs="?",
                        help="a sweep of 'core-tuning sweep list', or a .toml file of one's own, "
                        "that 'core-tuning sweep run' has run")
    add_output(parser)
    parser.add_argument("--domainbed", type=Path, metavar="DIR",
                        help="in place of NAME, a folder of DomainBed's: of its own sweep, of "
                        "'core-tuning domainbed sweep' or of 'core-tuning dg', with results.jsonl "
                        "and done in its sub-folders; by all three rules of model selection")
    parser.add_argument("--to", type=Path, metavar="DIR",
                        help="the report's folder, missing, empty, or of an earlier report of the "
                        "same runs, which is replaced; default: report/ in the folder of the runs")
    parser.add_argument("--no-page", action="store_true",
                        help="tables only, in seconds: neither report.html nor figures")
    return parser


# fmt: on
def main(argv: list[str]) -> int:
    """Run the command; return 0 if a report was written."""
    options = build_parser().parse_args(argv)
    command = shlex.join(["core-tuning", "sweep", "report", *argv])
    _check_options(options)
    asked = _domainbed(options, command) if options.domainbed else _sweep(options, command)
    _check_installed()
    from .writing import check_target, write_report

    target = options.to or asked.place / "report"
    check_target(target, asked.name)
    report = asked.read()

    def add_page(folder: Path) -> None:
        from .page import write_page

        write_page(report, asked.place, folder)

    write_report(report, target, None if options.no_page else add_page)
    _say(report, target, "report.md" if options.no_page else "report.html")
    return 0


def _check_options(options: argparse.Namespace) -> None:
    if (options.name is None) == (options.domainbed is None):
        raise UserError(
            "Give either NAME, a sweep's, or --domainbed DIR, a folder of DomainBed's runs: "
            "'core-tuning sweep list' shows the sweeps."
        )
    if options.domainbed is not None and options.output is not None:
        raise UserError(
            f"--output is {options.output}, which is a sweep's folder: with --domainbed the "
            "report's folder is --to."
        )


def _check_installed() -> None:
    if importlib.util.find_spec("pandas") is None:
        raise UserError(
            "The report needs pandas, which is not installed: pip install 'core-tuning[sweeps]'."
        )


def _warn(sentence: str) -> None:
    print(f"core-tuning: warning: {sentence}", file=sys.stderr)


def _domainbed(options: argparse.Namespace, command: str) -> _Asked:
    def read() -> Report:
        from .domainbed import read_domainbed

        return read_domainbed(options.domainbed, command, _warn)

    return _Asked(options.domainbed.resolve().name, options.domainbed, read)


def _sweep(options: argparse.Namespace, command: str) -> _Asked:
    stem = Path(options.name).stem
    place = sweep_path(options)
    if not (place / "sweep.json").is_file() and not is_toml(options.name):
        # A mistyped name says more than a folder that is not there.
        check_sweep(options.name)
    folder = open_sweep(place)
    if folder.name != stem:
        if not is_toml(options.name):
            check_sweep(options.name)
        raise UserError(
            f"The folder {place} is of another sweep, '{folder.name}' and not '{stem}': name "
            f"another with --output, or ask for the report of {folder.name}."
        )
    claims, changed = _current_claims(options.name, folder)

    def read() -> Report:
        from .results import read_report

        report = read_report(folder, command, claims, _warn)
        return report._replace(notes=(*report.notes, *changed))

    return _Asked(folder.name, place, read)


def _current_claims(name: str, folder: SweepFolder) -> tuple[list[Claim] | None, list[str]]:
    """The claims that the sweep's definition makes now, and what else of it has changed.

    None where it is not to be had or runs other things than the folder does, which has its own.
    """
    if not (Path(name).is_file() if is_toml(name) else name in sweep_names()):
        return None, []
    definition = read_definition(name)
    if what_it_runs(definition.text) == what_it_runs(folder.definition):
        return definition.claims, []
    changed = (
        f"The definition of {folder.name} has changed since these runs were begun; the report is "
        "by the one that the sweep's folder keeps."
    )
    return None, [changed]


def _say(report: Report, target: Path, shown: str) -> None:
    # The first note says how many runs are in it.
    from .judging import NOT_MEASURED

    print(f"{report.title}: {report.notes[0]} See {target / shown}.")
    measured = [finding for finding in report.findings if finding.verdict != NOT_MEASURED]
    for finding in measured:
        print(f"  {finding.verdict}: {finding.says} {finding.evidence}")
    left = len(report.findings) - len(measured)
    if left:
        print(
            f"  {NOT_MEASURED}: {left} of {len(report.findings)} findings; their runs are missing."
        )
