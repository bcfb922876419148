"""`core-tuning domainbed sweep`: DomainBed's sweep, checked before and reported after."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.options import Parser

from .launchers import offered, offered_launchers, report, rewriting_launchers
from .script_options import options_of, resolve
from .scripts import WORKERS, check_workers, prepare, run_script, script_path
from .train import HELP

TRAIN_ARGS = "--train-args"
NOTE = f"""
of core-tuning alone:
  {TRAIN_ARGS} ARGS   arguments of train that sweep has no option for, in one word:
                      {TRAIN_ARGS} "--checkpoint_freq 100 --skip_model_save"
  {WORKERS} N         processes of each data loader; DomainBed's data sets start 8

After launch the exit code is 1 if a job left no 'done', and these are listed with the last line
of their err.txt. A launcher of the checkout's own may return before its jobs have ended: then only
those whose err.txt ends in an error count as failed.
"""
# What a job's folder is named after; given again, it would be another job in that folder.
_OF_THE_SWEEP = (
    "--dataset", "--algorithm", "--test_envs", "--holdout_fraction", "--hparams_seed",
    "--data_dir", "--task", "--trial_seed", "--seed", "--steps", "--hparams", "--output_dir",
)  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """Run a sweep as `python -m domainbed.scripts.sweep` does, with the same arguments.

    Returns:
        1 if a job failed, else 0.

    Raises:
        UserError: a mistake for which jobs would fail or hang; nothing was launched.
    """
    own, rest = _own_options(arguments)
    root = prepare()
    if any(argument in HELP for argument in rest):
        return _help(rest)
    train_arguments = _train_arguments(own, root)
    place, rest = offered().take_place(rest)
    args = _sweep_options(rest)
    if args.command != "launch":
        run_script("sweep", rest)
        return 0
    registry = importlib.import_module("domainbed.command_launchers").REGISTRY
    with offered_launchers(registry, place):
        folders = _checked_folders(args, place)
        try:
            with rewriting_launchers(registry, root, train_arguments):
                run_script("sweep", rest)
        except EOFError as error:
            raise UserError(
                "The sweep asks for confirmation and nobody can answer: add --skip_confirmation."
            ) from error
    return report(folders, args.command_launcher)


def _checked_folders(args: argparse.Namespace, place: Any) -> list[Path]:
    """Return the folders of the sweep's jobs, none of which should fail or hang."""
    # Here, because it needs torch, for which --help of the other commands must not wait.
    from .job_checks import check_fraction
    from .sweep_checks import check_launcher, check_names, check_number, check_sweep

    check_launcher(args.command_launcher)
    offered().check(args.command_launcher, place)
    check_names(args.datasets, args.algorithms)
    check_fraction(args.holdout_fraction)
    check_number(args)
    folders, jobs = _jobs(args)
    check_sweep(jobs)
    return folders


def _help(arguments: Sequence[str]) -> int:
    try:
        run_script("sweep", arguments)
    finally:
        print(NOTE + offered().NOTE, end="")
    return 0


def _own_options(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Parser(prog="core-tuning domainbed sweep", add_help=False, allow_abbrev=False)
    parser.add_argument(TRAIN_ARGS, default="")
    parser.add_argument(WORKERS, type=int)
    own, rest = parser.parse_known_args(_with_joined_train_args(arguments))
    check_workers(own.workers)
    return own, rest


def _with_joined_train_args(arguments: Sequence[str]) -> list[str]:
    # argparse takes a value that starts with dashes only behind an equals sign.
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == TRAIN_ARGS:
            joined[-1] = f"{TRAIN_ARGS}={argument}"
        else:
            joined.append(argument)
    return joined


def _train_arguments(own: argparse.Namespace, root: Path) -> list[str]:
    try:
        words = shlex.split(own.train_args)
    except ValueError as error:
        raise UserError(
            f"{TRAIN_ARGS} is {own.train_args!r}, whose quotes do not match ({error}): quote it "
            "as a shell would."
        ) from error
    known = options_of(script_path(root, "train"))
    for word in words:
        if word.startswith("--"):
            _check_train_option(word.partition("=")[0], known)
    return words if own.workers is None else [*words, WORKERS, str(own.workers)]


def _check_train_option(word: str, known: list[str]) -> None:
    option = resolve(word, known)
    free = [name for name in known if name not in _OF_THE_SWEEP]
    if option is None:
        raise UserError(
            f"{TRAIN_ARGS} has '{word}', which train does not know: expected {', '.join(free)}."
        )
    if option in _OF_THE_SWEEP:
        raise UserError(
            f"{TRAIN_ARGS} has '{option}', which the sweep sets for each job: give it to the sweep "
            f"itself where it has it; {TRAIN_ARGS} takes {', '.join(free)}."
        )


def _sweep_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what the checks need; options of a checkout's own are left to its sweep."""
    module = _sweep_module()
    parser = Parser(prog="core-tuning domainbed sweep")
    parser.add_argument("command", choices=["launch", "delete_incomplete"])
    parser.add_argument("--datasets", nargs="+", default=module.DATASETS)
    parser.add_argument("--algorithms", nargs="+", default=module.algorithms.ALGORITHMS)
    parser.add_argument("--task", default="domain_generalization")
    for name, default in (("n_hparams_from", 0), ("n_hparams", 20), ("n_trials", 3), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name in ("output_dir", "data_dir", "command_launcher"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--hparams")
    parser.add_argument("--holdout_fraction", type=float, default=0.2)
    parser.add_argument("--single_test_envs", action="store_true")
    parser.add_argument("--skip_confirmation", action="store_true")
    return parser.parse_known_args(arguments)[0]


def _sweep_module() -> Any:
    return importlib.import_module("domainbed.scripts.sweep")


def _jobs(args: argparse.Namespace) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the folders of the sweep's jobs and the arguments that each gives to train."""
    module = _sweep_module()
    jobs = module.make_args_list(
        n_trials=args.n_trials,
        dataset_names=args.datasets,
        algorithms=args.algorithms,
        n_hparams_from=args.n_hparams_from,
        n_hparams=args.n_hparams,
        steps=args.steps,
        data_dir=args.data_dir,
        task=args.task,
        holdout_fraction=args.holdout_fraction,
        single_test_envs=args.single_test_envs,
        hparams=args.hparams,
    )
    return [Path(module.Job(job, args.output_dir).output_dir) for job in jobs], jobs
