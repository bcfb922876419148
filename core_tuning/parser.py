"""The argument parser of every sub-command."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

from .errors import UserError

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors: one sentence, exit code 2."""

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        # argparse ignores that it cannot be written.
        print(message, end="", file=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print behind its usage lines."""
        raise UserError(f"{message}; '{self.prog} --help' lists the options.")
