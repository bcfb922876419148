"""Command-line options of `core-tuning finetune`, without importing torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from core_tuning.options import Parser
from core_tuning.training.options import add_shared_options, complete


def build_parser() -> Parser:
    """Options of `core-tuning finetune`."""
    parser = Parser(
        prog="core-tuning finetune",
        usage="core-tuning finetune [options]",
        description="Fine-tune a self-supervised encoder. Hyper-parameters default to Table 11 "
        "of the paper for its data sets; without any option the embedded encoder is fine-tuned "
        "on the embedded data set by Core-tuning.",
        allow_abbrev=False,
    )
    add_shared_options(parser)
    return parser


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse and check a command line; the data set's preset fills in what it leaves out.

    Raises:
        UserError: an option is unknown or out of range.
    """
    options = build_parser().parse_args(argv)
    complete(options)
    if options.output is None:
        variant = "-released" if options.variant == "released" else ""
        options.output = Path("runs") / f"{options.dataset}-{options.method}{variant}"
    return options
