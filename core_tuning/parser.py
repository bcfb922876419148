"""The argument parser of every sub-command."""

from __future__ import annotations

import argparse
from typing import NoReturn

from .errors import UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors: one sentence, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print behind its usage lines."""
        raise UserError(f"{message}; '{self.prog} --help' lists the options.")
