"""The options of `core-tuning sweep`, torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.options import Options, option


@dataclass(kw_only=True)
class Report(Options):
    """Put what is finished of a sweep beside the paper's numbers.

    It writes table.csv (cells: mean, standard error, 95% interval, number of runs, the paper's
    value, difference), values.csv (runs), table.tex, report.md, and report.html with its figures,
    which opens without a network. Runs that are missing are shown as missing, so it can be asked
    for while a sweep is running. A report that is there is replaced by the new one.

    Example: core-tuning sweep report --domainbed sweeps/table8 --to docs/table8
    """

    name: str | None = option(
        None, "a sweep of 'core-tuning sweep list', or a .toml file of one's own, that "
        "'core-tuning sweep run' has run", positional=True,
    )  # fmt: skip
    output: Path | None = option(None, "the sweep's folder", says="runs/sweep-NAME", metavar="DIR")
    domainbed: Path | None = option(
        None, "in place of NAME, a folder of DomainBed's: of its own sweep, of 'core-tuning "
        "domainbed sweep' or of 'core-tuning dg', with results.jsonl and done in its sub-folders; "
        "by all three rules of model selection", metavar="DIR",
    )  # fmt: skip
    to: Path | None = option(
        None, "the report's folder, missing, empty, or of an earlier report of the same runs, "
        "which is replaced", says="report/ in the folder of the runs", metavar="DIR",
    )  # fmt: skip
    page: bool = option(True, "tables only, in seconds: neither report.html nor figures")

    def complete(self) -> None:
        """Check that one of the two kinds of folders is asked for."""
        if (self.name is None) == (self.domainbed is None):
            raise UserError(
                "Give either NAME, a sweep's, or --domainbed DIR, a folder of DomainBed's runs: "
                "'core-tuning sweep list' shows the sweeps."
            )
        if self.domainbed is not None and self.output is not None:
            raise UserError(
                f"--output is {self.output}, which is a sweep's folder: with --domainbed the "
                "report's folder is --to."
            )
