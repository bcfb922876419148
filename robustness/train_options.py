"""Command-line options of adversarial fine-tuning, without importing torch."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.options import Parser
from core_tuning.training.options import add_shared_options, complete

from .budgets import NORMS, Budget, make_budget, parse_eps, refuse_negative_fractions

# The strengths of the paper's main comparison (Tables 9 and 14).
DEFAULT_EPS = {"l2": "0.5", "linf": "4/255"}


class _Ambiguous(argparse.Action):
    """Refuses --steps, which means the attack's to some and the training's to others."""

    def __call__(self, parser: object, namespace: object, value: Any, flag: object = None) -> None:
        given = "" if value is None else f" {value}"
        raise UserError(
            f"--steps{given} is given: the steps of PGD are --attack-steps, and the length of "
            "training is --epochs; give the one that is meant."
        )


def build_parser() -> Parser:
    """Options of `core-tuning robust train`."""
    parser = Parser(
        prog="core-tuning robust train",
        usage="core-tuning robust train [options]",
        description="Fine-tune adversarially: each batch's clean images and those that PGD makes "
        "of them are joined, and the objective sees both (AT-CE, AT-CE-Con, AT-Core). The model "
        "is selected by robust accuracy on the validation split. Everything else is as in "
        "'core-tuning finetune'. A step with PGD-10 costs 26 forward passes where a plain one "
        "costs 3.",
        allow_abbrev=False,
    )
    _add_attack(parser)
    add_shared_options(parser)
    return parser


# fmt: off
def _add_attack(parser: Parser) -> None:
    group = parser.add_argument_group("attack")
    group.add_argument("--norm", default="l2", metavar="l2|linf", help="default: l2")
    group.add_argument("--eps", metavar="E",
                       help="largest norm of a perturbation of images in [0, 1] at the network's "
                       f"resolution (default: {DEFAULT_EPS['l2']} or {DEFAULT_EPS['linf']})")
    group.add_argument("--attack-steps", type=int, default=10, metavar="N",
                       help="of PGD; the length of training is --epochs (default: 10)")
    group.add_argument("--step-size", metavar="E", help="of PGD (default: 2.5 eps / steps)")
    group.add_argument("--allow-large-eps", action="store_true",
                       help="accept an eps above 32/255 (linf) or 2%% of sqrt(3hw) (l2), the "
                       "largest distance of two images of h x w pixels")
    # What training scripts call their length, and other attack libraries PGD's.
    group.add_argument("--steps", nargs="?", action=_Ambiguous, default=argparse.SUPPRESS,
                       help=argparse.SUPPRESS)
    group.add_argument("--adv-weight", type=float, default=0.5, metavar="W",
                       help="share of the adversarial half in the objective; less favours clean "
                       "accuracy, more robust accuracy (default: 0.5)")
    group.add_argument("--adversarial-only", action="store_true",
                       help="train on adversarial images alone, Madry's form")
    group.add_argument("--eps-warmup", type=float, nargs=2, default=(0.0, 0.0),
                       metavar=("ZERO", "RAMP"),
                       help="epochs without an attack, then epochs in which eps rises to its "
                       "value; try it if training from weights that are not robust stays at "
                       "chance (default: 0 0)")
    group.add_argument("--attack-precision", choices=("fp32", "bf16", "fp16"),
                       help="of the attack's passes, 77%% of the work; fp16 scales the loss "
                       "(default: that of --precision)")


# fmt: on
def parse(argv: list[str]) -> argparse.Namespace:
    """Parse and check a command line; `budget` of the result is not part of a run's config.

    Raises:
        UserError: an option is unknown or out of range.
    """
    refuse_negative_fractions(argv)
    options = build_parser().parse_args(argv)
    complete(options)
    if options.eps is None:
        options.eps = DEFAULT_EPS.get(options.norm, "0.5")
    budget_of(options)
    options.attack_precision = options.attack_precision or options.precision
    options.eps_warmup = list(options.eps_warmup)
    _check(options)
    if options.output is None:
        eps = options.eps.replace("/", "_")
        variant = "-released" if options.variant == "released" else ""
        options.output = (
            Path("runs") / f"{options.dataset}-at_{options.method}{variant}-{options.norm}-{eps}"
        )
    return options


def budget_of(options: argparse.Namespace) -> Budget:
    """Build the budget that the options describe.

    Raises:
        UserError: an unknown norm, or a number out of range.
    """
    eps = parse_eps(options.eps) if options.norm in NORMS else 0.0
    step_size = None
    if options.step_size is not None:
        step_size = parse_eps(options.step_size, "The step size")
    return make_budget(options.norm, eps, steps=options.attack_steps, step_size=step_size)


def _check(options: argparse.Namespace) -> None:
    if not 0 <= options.adv_weight <= 1:
        raise UserError(f"--adv-weight is {options.adv_weight}: expected a number in [0, 1].")
    if options.adversarial_only and options.adv_weight != 0.5:
        raise UserError(
            f"--adv-weight is {options.adv_weight} with --adversarial-only, which has no clean "
            "half to weigh: leave out one of them."
        )
    if options.variant == "released" and options.adv_weight != 0.5:
        raise UserError(
            f"--adv-weight is {options.adv_weight} with --variant released, which has no weights: "
            "leave out one of them."
        )
    zero, ramp = options.eps_warmup
    if not (zero >= 0 and ramp >= 0 and zero + ramp < options.epochs):
        raise UserError(
            f"--eps-warmup is {zero:g} {ramp:g}: expected two numbers of at least 0 that together "
            f"stay below the {options.epochs} epochs of the run."
        )
    if options.attack_precision == "fp16" and options.precision == "fp32":
        raise UserError(
            "--attack-precision is 'fp16' with --precision fp32: expected fp16 for both, or bf16, "
            "which needs no scaling of the loss."
        )
