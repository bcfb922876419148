"""Command-line options of the evaluation, without importing torch."""

from __future__ import annotations

import argparse
import difflib
import os
import re
from pathlib import Path

from core_tuning.checks import check_options
from core_tuning.errors import UserError
from core_tuning.options import Parser

from .budgets import NORMS, make_budget, parse_eps, refuse_negative_fractions

ATTACKS = ("fgsm", "pgd10", "pgd50x10", "square", "autoattack")
DEFAULT_ATTACKS = ("pgd10", "pgd50x10", "square", "autoattack")
# Table 9 of the paper.
PAPER_EPS = {"l2": ("0.5", "1.5", "2.5"), "linf": ("2/255", "4/255", "8/255")}
DEFAULT_N = 1000
# Options that are numbers.
RANGED = ("batch_size", "workers", "seed", "square_queries", "image_size")
# Options that change no row, or add rows, and may differ on --resume.
HARMLESS = frozenset(
    {"attacks", "l2", "linf", "masking_checks", "workers", "data_dir", "download", "device"}
)


def build_parser() -> Parser:
    """Options of `core-tuning robust evaluate`."""
    parser = Parser(
        prog="core-tuning robust evaluate",
        usage="core-tuning robust evaluate RUN|CHECKPOINT [options]",
        description="Measure clean and robust accuracy in float32, and look for masked gradients. "
        "Without options: PGD-10 (the paper's protocol), PGD-50 with 10 restarts, Square and "
        "AutoAttack standard, at every eps of the paper's Table 9, on up to 1000 test images.",
        allow_abbrev=False,
    )
    _add_subject(parser)
    _add_data(parser)
    _add_attacks(parser)
    _add_machine(parser)
    return parser


# One option a line or two reads better than the formatter's one argument a line.
# fmt: off
def _add_subject(parser: Parser) -> None:
    group = parser.add_argument_group("model, one of these")
    group.add_argument("model", nargs="?", type=Path, metavar="RUN|CHECKPOINT",
                       help="a run's folder or model.safetensors; or a fine-tuned torchvision or "
                       "timm classifier (.pth, .safetensors), with --encoder, --dataset and "
                       "--normalisation")
    group.add_argument("--module", metavar="FILE.py:FUNCTION",
                       help="a function without arguments that returns a torch.nn.Module from "
                       "images in [0, 1] to logits; the file is run; with --dataset and "
                       "--image-size")
    group = parser.add_argument_group("what a checkpoint or a module does not state")
    group.add_argument("--encoder", metavar="NAME",
                       help="of a checkpoint: a torchvision ResNet or ResNeXt, timm:NAME "
                       "(timm:NAME,num_heads=N for other attention heads than timm's), "
                       "small_resnet or small_resnet_2x")
    group.add_argument("--normalisation", choices=("imagenet", "none"),
                       help="what the model needs of images in [0, 1] (a module: default none)")
    group.add_argument("--image-size", type=int, metavar="PX", help="side of the network's input")
    group.add_argument("--transforms", choices=("imagenet", "cifar", "small", "domainbed"),
                       help="resizing and cropping; default: what the paper uses for the data set")


def _add_data(parser: Parser) -> None:
    group = parser.add_argument_group("images")
    group.add_argument("--dataset", metavar="NAME", help="default: the run's; else one with the "
                       "model's classes, as 'core-tuning finetune --help' lists them")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="where the data set lies")
    group.add_argument("--download", action="store_true",
                       help="fetch it first, where torchvision can")
    group.add_argument("--split", choices=("test", "validation"), default="test")
    group.add_argument("--n", metavar="N|all",
                       help=f"images, drawn by --seed, the same for every attack (default: "
                       f"{DEFAULT_N}, or all where there are fewer)")
    group.add_argument("--seed", type=int, default=0, help="of images and attacks (default: 0)")


def _add_attacks(parser: Parser) -> None:
    group = parser.add_argument_group("attacks")
    group.add_argument("--attacks", nargs="+", default=list(DEFAULT_ATTACKS), metavar="NAME",
                       help=f"of {', '.join(ATTACKS)} (default: {' '.join(DEFAULT_ATTACKS)})")
    group.add_argument("--norm", nargs="+", metavar="NORM",
                       help="l2, linf (default: both)")
    for norm, values in PAPER_EPS.items():
        group.add_argument(f"--{norm}", nargs="*", metavar="EPS",
                           help=f"eps of images in [0, 1] (default: {' '.join(values)}, Table 9; "
                           f"--{norm} alone leaves the norm out)")
    group.add_argument("--attack-space", choices=("input", "native"), default="input",
                       help="attack the network's input, as the paper does, or the images at their "
                       "own resolution with the resizing inside the model, comparable with "
                       "RobustBench; images of many sizes are then attacked size by size, slowly")
    group.add_argument("--square-queries", type=int, default=5000, metavar="Q",
                       help="of square, for each image (default: 5000; AutoAttack keeps its own)")
    group.add_argument("--no-masking-checks", dest="masking_checks", action="store_false",
                       help="do not look for masked gradients")


def _add_machine(parser: Parser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--batch-size", type=int, default=128,
                       help="images attacked at once; another one gives other random starts "
                       "(default: 128)")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group.add_argument("--workers", type=int, default=2, help="image reading processes")
    group.add_argument("--output", type=Path, metavar="DIR",
                       help="default: RUN/robustness, or runs/robustness-NAME")
    group.add_argument("--resume", action="store_true",
                       help="go on with a stopped evaluation, or add attacks and eps to one")
    group.add_argument("--overwrite", action="store_true",
                       help="delete an older evaluation there first")


# fmt: on
def parse(argv: list[str]) -> argparse.Namespace:
    """Parse and check a command line.

    Returns:
        The options; `budgets` holds (norm, eps) in the order of the rows, `l2` and `linf` the
        numbers of each norm, and `n` a number, "all" or None.

    Raises:
        UserError: an option is unknown, missing or out of range.
    """
    refuse_negative_fractions(argv)
    options = build_parser().parse_args(argv)
    _check_subject(options)
    _check_numbers(options)
    options.attacks = _unique([_known("attack", name, ATTACKS) for name in options.attacks])
    options.budgets = _budgets(options)
    for norm in NORMS:
        setattr(options, norm, [eps for each, eps in options.budgets if each == norm])
    return options


def _check_subject(options: argparse.Namespace) -> None:
    if (options.model is None) == (options.module is None):
        given = "Both a model file and --module are" if options.model else "No model is"
        raise UserError(
            f"{given} given: name a run's folder, a checkpoint, or --module FILE.py:FUNCTION."
        )
    if options.module is not None and not all(options.module.rpartition(":")):
        raise UserError(
            f"--module is '{options.module}': expected FILE.py:FUNCTION, such as my.py:build_model."
        )
    # Not Path's, which raises for names that no file can have.
    if options.model is not None and not os.path.exists(options.model):  # noqa: PTH110
        raise UserError(
            f"'{str(options.model)[:200]}' does not exist: name a run's folder, its "
            "model.safetensors, or a checkpoint."
        )
    if options.resume and options.overwrite:
        raise UserError("--resume and --overwrite are both given: choose one of them.")


def _check_numbers(options: argparse.Namespace) -> None:
    check_options(options, RANGED)
    if options.n not in (None, "all"):
        if not re.fullmatch(r"0*[1-9]\d{0,17}", options.n):
            raise UserError(f"--n is '{options.n}': expected a number of at least 1, or all.")
        options.n = int(options.n)


def _known(kind: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        nearest = difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.4)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        raise UserError(f"The {kind} is '{name}': expected one of {', '.join(choices)}{hint}")
    return name


def _budgets(options: argparse.Namespace) -> list[tuple[str, float]]:
    asked = [_known("norm", norm, NORMS) for norm in options.norm or NORMS]
    budgets = []
    for norm in NORMS:
        given = getattr(options, norm)
        if norm not in asked:
            if given:
                raise UserError(
                    f"--{norm} is given and --norm {' '.join(asked)} leaves that norm out: "
                    "leave out one of them."
                )
            continue
        for text in PAPER_EPS[norm] if given is None else given:
            budgets.append((norm, _positive(norm, text)))
    if not budgets:
        raise UserError("No eps is left to attack with: give --l2 EPS or --linf EPS.")
    return _unique(budgets)


def _positive(norm: str, text: str) -> float:
    eps = make_budget(norm, parse_eps(text)).eps
    if eps == 0:
        raise UserError(f"--{norm} {text} allows no change: clean accuracy is measured anyway.")
    return eps


def _unique(values: list) -> list:
    return list(dict.fromkeys(values))
