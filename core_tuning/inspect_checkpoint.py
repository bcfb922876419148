"""The command `core-tuning inspect`: says what a checkpoint holds and how to use it."""

from __future__ import annotations

from .options import Parser


def main(argv: list[str]) -> int:
    """Print the description of each file named in `argv`.

    Raises:
        UserError: a file cannot be read or recognised.
    """
    parser = Parser(
        prog="core-tuning inspect",
        description="Say what a checkpoint holds and the flags to fine-tune it with.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a checkpoint of any format")
    args = parser.parse_args(argv)

    # Here, because --help must not wait for torch.
    from .checkpoints import describe

    for file in args.files:
        print("\n".join(describe(file)))
    return 0
