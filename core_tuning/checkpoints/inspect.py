"""The command `core-tuning inspect`: says what a checkpoint holds and how to use it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path

from ..files import require_file
from ..options import Options, option


@dataclass(kw_only=True)
class Inspect(Options):
    """Say what a checkpoint holds and the flags to fine-tune it with."""

    files: list[str] = option(
        MISSING, "a checkpoint of any format", metavar="FILE", positional=True, at_least=1
    )


def main(options: Inspect) -> None:
    """Print the description of each file.

    Raises:
        UserError: a file cannot be read or recognised.
    """
    for file in options.files:
        require_file(Path(file))
    # Here, because what is missing need not wait for torch.
    from .describe import describe

    for file in options.files:
        print("\n".join(describe(file)))
