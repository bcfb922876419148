"""Command-line options of `core-tuning sweep run`, its --dry-run included."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from core_tuning.checks import check_range
from core_tuning.errors import UserError
from core_tuning.options import Parser

from .definition import Sweep, load_sweep
from .launchers import LAUNCHERS


# fmt: off
def build_parser() -> Parser:
    """Options of `core-tuning sweep run`."""
    parser = Parser(
        prog="core-tuning sweep run",
        description="Make the runs of a sweep: finished ones are left as they are, half-finished "
        "ones go on (those of DomainBed's own script begin anew), failed ones wait for "
        "'core-tuning sweep retry'.",
        epilog="Example: core-tuning sweep run table02 --only dataset=dtd dataset=pets --set "
        "data_dir=/data pretrained=moco_v2_800ep_pretrain.pth.tar --dry-run",
        allow_abbrev=False,
    )
    _add_sweep(parser)
    add_launcher(parser)
    _add_cost(parser)
    return parser


def _add_sweep(parser: Parser) -> None:
    group = parser.add_argument_group("what to run")
    group.add_argument("name", metavar="NAME",
                       help="a sweep of 'core-tuning sweep list', or a .toml file of one's own")
    add_output(group)
    group.add_argument("--seeds", type=int, nargs="+", metavar="S",
                       help="one run each of every cell (default: those of the definition)")
    group.add_argument("--small", action="store_true",
                       help="the definition's small setting, if it has one")
    group.add_argument("--only", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                       help="the cells with one of these values of an axis, such as row=CE "
                       "dataset=dtd dataset=pets; all axes given must hold, and part=NAME takes a "
                       "part")
    group.add_argument("--set", nargs="+", action="extend", default=[], dest="settings",
                       metavar="KEY=VALUE",
                       help="options of the runs, such as data_dir=/data, "
                       "pretrained=FILE, hparams.checkpoint=FILE (dg) or evaluate.n=all (robust)")


def add_output(parser: argparse._ActionsContainer) -> None:
    """Add the option that `sweep_path` reads."""
    parser.add_argument("--output", type=Path, metavar="DIR",
                        help="the sweep's folder; default: runs/sweep-NAME")


def add_launcher(parser: Parser) -> None:
    """Add the options of where runs are made."""
    group = parser.add_argument_group("where to run it")
    group.add_argument("--launcher", choices=tuple(LAUNCHERS), default="local",
                       help="on this machine, by sbatch, or on a Ray cluster (default: local)")
    group.add_argument("--workers", type=int, metavar="N",
                       help="runs at the same time (default: one a GPU, or one without a GPU; "
                       "slurm: 256; ray: as many as it has room for)")
    add_cluster(group)


def add_cluster(parser: argparse._ActionsContainer) -> None:
    """Add the options of Slurm and of Ray."""
    parser.add_argument("--ray-address", metavar="ADDRESS",
                        help="of a Ray cluster to join (default: Ray starts on this machine)")
    parser.add_argument("--slurm", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="parameters of sbatch, such as partition=gpu gpus=1 time=240 "
                        "(minutes; default: a day); no GPU unless gpus says so; cluster=local "
                        "tries it without Slurm")


def _add_cost(parser: Parser) -> None:
    group = parser.add_argument_group("cost")
    group.add_argument("--dry-run", action="store_true",
                       help="print the runs, their commands and their estimated cost; run nothing")
    group.add_argument("--tflops", type=float, metavar="T",
                       help="TFLOP/s that the estimate takes a GPU to sustain (default: 30)")
    group.add_argument("--price", type=float, metavar="DOLLARS", help="of a GPU hour")


# fmt: on
def parse(argv: list[str]) -> argparse.Namespace:
    """Parse and check a command line.

    Returns:
        The options; `only` maps an axis to its values, `settings` and `slurm` map a key to its
        text, `output` is always a path, and `seeds` is None where none are given.

    Raises:
        UserError: an option is unknown or out of range.
    """
    options = build_parser().parse_args(argv)
    only: dict[str, list[str]] = {}
    for key, text in _pairs("--only", options.only, "dataset=dtd"):
        only.setdefault(key, []).append(text)
    options.only = only
    options.settings = dict(_unique("--set", options.settings, "data_dir=/data"))
    options.slurm = slurm_parameters(options.slurm)
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers is {options.workers}: expected at least 1.")
    if options.tflops is not None:
        check_range("tflops", options.tflops, "--tflops")
    if options.price is not None and not 0 <= options.price < math.inf:
        raise UserError(f"--price is {options.price}: expected dollars of at least 0.")
    options.output = sweep_path(options)
    return options


def sweep_path(options: argparse.Namespace) -> Path:
    """Return the sweep's folder: `output`, else one that bears `name`."""
    return options.output or Path("runs") / f"sweep-{Path(options.name).stem}"


def slurm_parameters(given: list[str]) -> dict[str, str]:
    """Read what --slurm gives.

    Raises:
        UserError: it is not KEY=VALUE, or a key stands there twice.
    """
    return dict(_unique("--slurm", given, "partition=gpu"))


def wanted_sweep(options: argparse.Namespace) -> Sweep:
    """Return the runs that the options of `parse` ask for; raises what `load_sweep` raises."""
    return load_sweep(
        options.name,
        seeds=options.seeds,
        small=options.small,
        settings=options.settings,
        only=options.only,
    )


def _pairs(flag: str, given: list[str], example: str) -> list[tuple[str, str]]:
    pairs = []
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise UserError(f"{flag} is '{text}': expected KEY=VALUE, such as {example}.")
        pairs.append((key, value))
    return pairs


def _unique(flag: str, given: list[str], example: str) -> list[tuple[str, str]]:
    pairs = _pairs(flag, given, example)
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"{flag} gives '{key}' twice: give it once.")
    return pairs
