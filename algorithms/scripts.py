"""Runs DomainBed's own scripts in this process, with Core-tuning's names registered."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .checkout import find_checkout

WORKERS = "--workers"


def prepare() -> Path:
    """Make the checkout importable, register with it, and return its root.

    Raises:
        UserError: there is no checkout, or it cannot be registered with.
    """
    root = find_checkout()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
    # Here, because --help must not wait for torch.
    from .registration import register

    register()
    return root


def script_path(root: Path, name: str) -> Path:
    """Return the file of one of DomainBed's scripts."""
    return root / "domainbed" / "scripts" / f"{name}.py"


def run_script(name: str, arguments: Sequence[str]) -> None:
    """Run a script of DomainBed as `python -m domainbed.scripts.NAME` would.

    Raises:
        UserError: a user's mistake that shows in the course of it, or a file or a connection is
            refused.
        SystemExit: the script's own parser refused the arguments.
    """
    module = f"domainbed.scripts.{name}"
    # Python warns where a module to be run has been imported already, as for its functions.
    sys.modules.pop(module, None)
    sys.argv = [name, *arguments]
    streams = sys.stdout, sys.stderr
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except (OSError, RuntimeError, UserError) as error:
        reason = _refusal(error)
        if reason is None and not isinstance(error, OSError | UserError):
            raise
        # DomainBed's own write into files too, which may be what cannot be written.
        sys.stdout, sys.stderr = streams
        if reason is None:
            raise
        raise UserError(
            f"DomainBed's {name} was refused a file or a connection ({reason}): make room for it, "
            "give it the right or the network that it needs, and start again."
        ) from error


def _refusal(error: Exception) -> str | None:
    """Return what the system has refused, if this is such an error and not a closed output."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        reason = str(error.strerror or error)
        return f"{error.filename}: {reason}" if error.filename else reason
    # What torch.save makes of a full disk.
    if "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
        return "a model cannot be written"
    return None


def check_text(text: str, what: str) -> None:
    """Refuse a name that DomainBed cannot print and write: those of files may be any bytes.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{what} {text!a} is not UTF-8, in which DomainBed writes it into its files: "
            "rename it or use another."
        ) from error


def take_workers(arguments: Sequence[str]) -> tuple[int | None, list[str]]:
    """Take the option --workers out of arguments of train; return its value and the others.

    Raises:
        UserError: it is not a whole number of at least 0.
    """
    parser = Parser(prog="core-tuning domainbed train", add_help=False, allow_abbrev=False)
    parser.add_argument(WORKERS, type=int)
    own, rest = parser.parse_known_args(arguments)
    check_workers(own.workers)
    return own.workers, rest


def check_workers(workers: int | None) -> None:
    """Refuse a negative number of workers.

    Raises:
        UserError: it is below 0.
    """
    if workers is not None and workers < 0:
        raise UserError(f"{WORKERS} is {workers}: expected 0 or more processes for each loader.")


def set_workers(workers: int) -> None:
    """Set the number of processes that each loader of any data set starts."""
    datasets = importlib.import_module("domainbed.datasets")
    for value in vars(datasets).values():
        if isinstance(value, type) and issubclass(value, datasets.MultipleDomainDataset):
            value.N_WORKERS = workers  # type: ignore[attr-defined]
