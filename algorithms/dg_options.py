"""Options of `core-tuning dg`: DomainBed's own names and defaults, and what it lacks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from core_tuning.checks import check_options
from core_tuning.errors import UserError
from core_tuning.options import Parser

from .names import ALGORITHMS, DATASETS, DOMAINBED_STEPS, EMOJI, nearest

if TYPE_CHECKING:
    from .job import Machine

ALL, PAIRS = "all", "pairs"
# Options that are numbers, and those that DomainBed writes otherwise.
RANGED = (
    "steps", "evaluate_every", "holdout_fraction", "image_size", "workers", "memory",
    "checkpoint_minutes", "seed", "hparams_seed", "trial_seed",
)  # fmt: skip
FLAGS = {
    "evaluate_every": "checkpoint_freq",
    **{name: name for name in ("holdout_fraction", "hparams_seed", "trial_seed")},
}


# fmt: off
def build_parser() -> Parser:
    """Options of `core-tuning dg`."""
    parser = Parser(
        prog="core-tuning dg",
        description="Domain generalisation by DomainBed's protocol, without DomainBed: train on "
        "all domains but the targets, evaluate on every split of every domain. Its options have "
        "DomainBed's names and, but for data set, algorithm, folder and seed, its defaults; its "
        "folders are read by DomainBed's collect_results.",
        epilog="Several algorithms, targets, trials or hyper-parameter seeds make one run each, "
        "in folders of their own, and one table of all. Example: core-tuning dg --algorithm "
        "CETuning CoreTuning --test_envs all --trial_seed 0 1 2 --steps 1000 --output_dir runs/dg",
        allow_abbrev=False,
    )
    _add_protocol(parser)
    _add_evaluation(parser)
    _add_machine(parser)
    return parser


def _add_protocol(parser: Parser) -> None:
    group = parser.add_argument_group("DomainBed's options")
    group.add_argument("--dataset", default=EMOJI, metavar="NAME",
                       help=f"{', '.join(DATASETS)}, or the name of a folder in --data_dir with "
                       f"domain/class/* in it (default: {EMOJI}, which is embedded)")
    group.add_argument("--data_dir", "--data-dir", type=Path, metavar="DIR",
                       help="holds PACS/, VLCS/, office_home/, terra_incognita/, domain_net/")
    group.add_argument("--algorithm", nargs="+", default=["CoreTuning"], metavar="NAME",
                       help=f"of {', '.join(ALGORITHMS)} (default: CoreTuning)")
    group.add_argument("--test_envs", "--test-envs", nargs="+", default=["0"], metavar="I",
                       help="numbers of the target domains of one run; 'all' for a run of each "
                       "domain; 'pairs' for these and each pair, which leave-one-domain-out "
                       "selection needs (default: 0)")
    group.add_argument("--hparams", metavar="JSON",
                       help="hyper-parameters, such as '{\"eta\": 1.0, \"batch_size\": 16}'")
    group.add_argument("--hparams_seed", "--hparams-seed", type=int, nargs="+", default=[0],
                       metavar="S", help="0 for the default hyper-parameters, others for random "
                       "ones (default: 0)")
    group.add_argument("--trial_seed", "--trial-seed", type=int, nargs="+", default=[0],
                       metavar="S", help="of the splits (default: 0)")
    group.add_argument("--seed", type=int, metavar="S",
                       help="of everything else (default: the trial seed)")
    group.add_argument("--steps", type=int, default=DOMAINBED_STEPS, metavar="N",
                       help=f"default: {DOMAINBED_STEPS}, as DomainBed; the paper: 20000")
    group.add_argument("--checkpoint_freq", "--checkpoint-freq", "--eval-every", type=int,
                       dest="evaluate_every", metavar="N",
                       help="steps between evaluations (default: 300, DomainNet 1000)")
    group.add_argument("--holdout_fraction", "--holdout-fraction", type=float, default=0.2,
                       metavar="F", help="share of each domain that validates (default: 0.2)")
    group.add_argument("--output_dir", "--output-dir", "--output", type=Path, metavar="DIR",
                       default=Path("runs/dg"), help="default: runs/dg")
    group.add_argument("--skip_model_save", "--skip-model-save", action="store_true",
                       help="write no models")
    group.add_argument("--save_model_every_checkpoint", "--save-model-every-checkpoint",
                       action="store_true", help="write the model of each evaluation")
    group.add_argument("--task", choices=("domain_generalization",),
                       default="domain_generalization", help="the only one that is offered")


def _add_evaluation(parser: Parser) -> None:
    group = parser.add_argument_group("evaluation, beyond DomainBed")
    group.add_argument("--augmented-validation", action="store_true",
                       help="augment the source domains' images in evaluations too, as DomainBed")
    group.add_argument("--skip-training-splits", action="store_true",
                       help="do not evaluate the images that are trained on: fewer forward passes")
    group.add_argument("--image-size", type=int, metavar="PIXELS",
                       help=f"default: 224, {EMOJI} 32")


def _add_machine(parser: Parser) -> None:
    group = parser.add_argument_group("machine and folders, beyond DomainBed")
    group.add_argument("--no-scan", dest="scan", action="store_false",
                       help="do not look at the header of every image before training")
    group.add_argument("--resume", action="store_true",
                       help="go on with stopped runs; finished ones are left as they are")
    group.add_argument("--overwrite", action="store_true", help="delete older runs there first")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument("--precision", choices=("fp32", "bf16"), default="fp32",
                       help="of the training steps; losses and evaluation stay float32")
    group.add_argument("--workers", type=int, default=1, metavar="N",
                       help="processes that augment images (default: 1; try one a spare core)")
    group.add_argument("--memory", type=float, default=2.0, metavar="GIB",
                       help="images kept in memory, decoded and ready for evaluation, at most so "
                       "much each; 0 reads the files each time (default: 2)")
    group.add_argument("--checkpoint-minutes", type=float, default=10.0, metavar="M",
                       help="save at least so often (0: after every step; default: 10); every "
                       "evaluation saves anyway")


# fmt: on
def parse(argv: list[str]) -> argparse.Namespace:
    """Parse and check a command line.

    Raises:
        UserError: an option is unknown or out of range.
    """
    options = build_parser().parse_args(argv)
    # Here, because --help must not wait for torch.
    from .job import parse_hparams

    options.hparams = parse_hparams(options.hparams)
    options.targets = parse_targets(options.test_envs)
    if options.evaluate_every is None:
        layout = DATASETS.get(options.dataset)
        options.evaluate_every = layout.evaluate_every if layout else 300
    for name in options.algorithm:
        if name not in ALGORITHMS:
            close = nearest(name, ALGORITHMS)
            others = "DomainBed's own run by 'core-tuning domainbed train'."
            hint = f"did you mean '{close}'?" if close else others
            raise UserError(
                f"--algorithm is '{name}': expected one of {', '.join(ALGORITHMS)}; {hint}"
            )
    _check_ranges(options)
    return options


def parse_targets(given: list[str]) -> str | list[int]:
    """Read --test_envs: "all", "pairs", or the numbers of one run."""
    if len(given) == 1 and given[0] in (ALL, PAIRS):
        return given[0]
    if not all(text.isdecimal() for text in given):
        raise UserError(
            f"--test_envs is '{' '.join(given)}': expected numbers of domains, '{ALL}' or "
            f"'{PAIRS}'."
        )
    return [int(text) for text in given]


def _check_ranges(options: argparse.Namespace) -> None:
    for name in ("algorithm", "hparams_seed", "trial_seed"):
        values = getattr(options, name)
        if len(set(values)) < len(values):
            raise UserError(f"--{name} names {values}, one twice: name each once.")
    check_options(options, RANGED, FLAGS)
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite exclude each other: give one of them.")


def machine(options: argparse.Namespace) -> Machine:
    """What the command line says of the machine."""
    from .job import Machine

    return Machine(
        device=options.device,
        precision=options.precision,
        workers=options.workers,
        memory=options.memory,
        checkpoint_minutes=options.checkpoint_minutes,
        save_models=not options.skip_model_save,
        save_every_model=options.save_model_every_checkpoint,
    )
