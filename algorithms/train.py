"""`core-tuning domainbed train`: DomainBed's train, after a look at what it would choke on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from core_tuning.errors import UserError

from .checkout import find_checkout
from .script_options import option_values, options_of
from .scripts import WORKERS, prepare, run_script, script_path, set_workers, take_workers

HELP = ("-h", "--help")
NOTE = f"""
of core-tuning alone:
  {WORKERS} N   processes of each data loader; DomainBed's data sets start 8"""


def main(arguments: Sequence[str]) -> int:
    """Train as `python -m domainbed.scripts.train` does, with the same arguments and --workers.

    Raises:
        UserError: a mistake in the arguments, the data or the checkpoint.
    """
    if any(argument in HELP for argument in arguments):
        return _help(find_checkout())
    workers, rest = take_workers(arguments)
    root = prepare()
    given = option_values(rest, options_of(script_path(root, "train")))
    try:
        _check(given)
        if workers is not None:
            set_workers(workers)
        run_script("train", rest)
    except UserError as error:
        _note(error, given)
        raise
    return 0


def _help(root: Path) -> int:
    # Its own --help fails: argparse takes a per cent sign in it for a format.
    names = "\n".join(f"  {name}" for name in options_of(script_path(root, "train")))
    print(f"usage: core-tuning domainbed train [options]\n\nof DomainBed's train:\n{names}\n{NOTE}")
    return 0


def _check(given: dict[str, list[str]]) -> None:
    # Here, because it needs torch, for which --help of the other commands must not wait.
    from . import job_checks as checks
    from .hyperparameters import parse_hparams
    from .sweep_checks import check_batch

    dataset = _last(given, "--dataset") or "RotatedMNIST"
    algorithm = _last(given, "--algorithm") or "ERM"
    checks.check_dataset_name(dataset)
    checks.check_algorithm_name(algorithm)
    checks.check_test_envs(dataset, given.get("--test_envs", []))
    checks.check_fraction(_last(given, "--holdout_fraction"))
    for option in ("--seed", "--trial_seed", "--hparams_seed"):
        checks.check_seed(option, _last(given, option))
    hparams = parse_hparams(_last(given, "--hparams"))
    checks.check_algorithm_hparams(algorithm, dataset, hparams)
    checks.check_data(dataset, _last(given, "--data_dir"))
    try:
        job = {
            "dataset": dataset,
            "algorithm": algorithm,
            "data_dir": _last(given, "--data_dir"),
            "test_envs": [int(value) for value in given.get("--test_envs", ["0"])],
            "holdout_fraction": float(_last(given, "--holdout_fraction") or 0.2),
            "hparams_seed": int(_last(given, "--hparams_seed") or 0),
            "trial_seed": int(_last(given, "--trial_seed") or 0),
        }
    except ValueError:
        return  # DomainBed's own parser refuses what is not a number.
    check_batch(job, hparams)


def _last(given: dict[str, list[str]], option: str) -> str | None:
    values = given.get(option)
    return values[-1] if values else None


def _note(error: UserError, given: dict[str, list[str]]) -> None:
    """Leave the mistake where DomainBed leaves its errors, if that is there already.

    It is for the jobs of a sweep, whose folders are made before they start.
    """
    folder = Path(_last(given, "--output_dir") or "train_output")
    # Where nothing can be written, as on a full disk, it is printed alone.
    with suppress(OSError):
        if folder.is_dir():
            with (folder / "err.txt").open("a", encoding="utf-8") as file:
                file.write(f"core-tuning: error: {error}\n")
