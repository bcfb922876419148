"""The options of `core-tuning sweep`, torch-free."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.options import Options, option

from .launch import LAUNCHERS, Place


@dataclass(kw_only=True)
class List(Options):
    """List the sweeps: each stands for a table or figure of the paper.

    Each is a short TOML file; 'core-tuning sweep run' also takes the path of one's own.
    """


@dataclass(kw_only=True)
class Named(Options):
    """the sweep"""

    name: str = option(
        dataclasses.MISSING,
        "a sweep of 'core-tuning sweep list', or a .toml file of one's own",
        positional=True,
    )
    output: Path | None = option(None, "the sweep's folder", says="runs/sweep-NAME", metavar="DIR")

    @property
    def path(self) -> Path:
        """The sweep's folder."""
        return folder_of(self.name, self.output)


def folder_of(name: str, output: Path | None) -> Path:
    """The folder of the sweep of a name: `output`, else one that bears the name."""
    return output or Path("runs") / f"sweep-{Path(name).stem}"


@dataclass(kw_only=True)
class Cluster(Options):
    """clusters"""

    ray_address: str | None = option(
        None, "of a Ray cluster to join", says="Ray starts on this machine", metavar="ADDRESS"
    )
    slurm: list[str] = option(
        [], "parameters of sbatch, such as partition=gpu gpus=1 time=240 (minutes; default: a "
        "day); no GPU unless gpus says so; cluster=local tries it without Slurm",
        metavar="KEY=VALUE", at_least=1, extend=True,
    )  # fmt: skip

    @property
    def parameters(self) -> dict[str, str]:
        """What --slurm gives."""
        return _unique("--slurm", self.slurm, "partition=gpu")

    def complete(self) -> None:
        """Check that --slurm gives pairs, before anything is written or forgotten."""
        super().complete()
        _unique("--slurm", self.slurm, "partition=gpu")


@dataclass(kw_only=True)
class Jobs(Cluster):
    """Options of our launchers in DomainBed's sweep."""

    jobs: int | None = option(None, "at the same time")


@dataclass(kw_only=True)
class Where(Cluster):
    """where to run it"""

    launcher: str = option(
        "local", "on this machine, by sbatch, or on a Ray cluster", choices=tuple(LAUNCHERS)
    )
    workers: int | None = option(
        None, "runs at the same time", says="one a GPU, or one without a GPU; slurm: 256; ray: as "
        "many as it has room for", metavar="N", range="jobs",
    )  # fmt: skip

    @property
    def place(self) -> Place:
        """Where the launcher makes runs."""
        return Place(self.workers, self.parameters, self.ray_address)


@dataclass(kw_only=True)
class Run(Named, Where):
    """Make the runs of a sweep.

    Finished ones are left as they are, half-finished ones go on (those of DomainBed's own script
    begin anew), failed ones wait for 'core-tuning sweep retry'.

    Example: core-tuning sweep run table02 --only dataset=dtd dataset=pets --set data_dir=/data
    pretrained=moco_v2_800ep_pretrain.pth.tar --dry-run
    """

    seeds: list[int] | None = option(
        None, "one run each of every cell", says="those of the definition", metavar="S", at_least=1
    )
    small: bool = option(False, "the definition's small setting, if it has one")
    only: list[str] = option(
        [], "the cells with one of these values of an axis, such as row=CE dataset=dtd "
        "dataset=pets; all axes given must hold, and part=NAME takes a part",
        metavar="KEY=VALUE", at_least=1, extend=True,
    )  # fmt: skip
    set: list[str] = option(
        [], "options of the runs, such as data_dir=/data, pretrained=FILE, hparams.checkpoint=FILE "
        "(dg) or evaluate.n=all (robust)", metavar="KEY=VALUE", at_least=1, extend=True,
    )  # fmt: skip
    dry_run: bool = option(
        False, "print the runs, their commands and their estimated cost; run nothing"
    )
    tflops: float | None = option(
        None, "TFLOP/s that the estimate takes a GPU to sustain", says="30", metavar="T"
    )
    price: float | None = option(None, "of a GPU hour", metavar="DOLLARS")

    @property
    def kept(self) -> dict[str, list[str]]:
        """An axis -> its values that --only keeps."""
        only: dict[str, list[str]] = {}
        for key, text in _pairs("--only", self.only, "dataset=dtd"):
            only.setdefault(key, []).append(text)
        return only

    @property
    def settings(self) -> dict[str, str]:
        """What --set gives."""
        return _unique("--set", self.set, "data_dir=/data")


@dataclass(kw_only=True)
class Status(Named):
    """Say what is done, running, failed and left, and how long that takes."""

    price: float | None = option(None, "of a GPU hour", metavar="DOLLARS")
    watch: bool = option(False, "show it again and again until nothing is left to do")
    every: float = option(5.0, "seconds between two looks of --watch", metavar="SECONDS")


@dataclass(kw_only=True)
class Retry(Named, Where):
    """Make failed runs again.

    Each goes on from its last checkpoint (those of DomainBed's own script begin anew).
    """

    ids: list[str] = option([], "of failed runs (default: all)", metavar="ID", positional=True)


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


def _pairs(flag: str, given: Sequence[str], example: str) -> list[tuple[str, str]]:
    pairs = []
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"{flag} is '{text}': expected KEY=VALUE, such as {example}.")
        pairs.append((key, value))
    return pairs


def _unique(flag: str, given: Sequence[str], example: str) -> dict[str, str]:
    pairs = _pairs(flag, given, example)
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{flag} gives '{key}' twice: give it once.")
    return dict(pairs)
