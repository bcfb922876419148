"""`core-tuning domainbed …`: DomainBed's own scripts, with Core-tuning's names registered.

What would make a job fail or hang is refused before it starts; the jobs of a sweep that failed are
listed at its end. torch is imported after a --help has been answered.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from core_tuning.checks import check_range
from core_tuning.commands import DOMAINBED_LAUNCHERS
from core_tuning.errors import UserError
from core_tuning.options import Parser
from core_tuning.stopping import Stopped

from .checkout import ROOT_VARIABLE, find_checkout
from .script_options import options_of

PROG = "core-tuning domainbed"
Command = Callable[[Sequence[str]], int]
Launcher = Callable[[list[str]], object]
HELP = ("-h", "--help")
WORKERS, TRAIN_ARGS = "--workers", "--train-args"
_WORKERS_NOTE = f"  {WORKERS} N         processes of each loader; DomainBed's data sets start 8"
SWEEP_NOTE = f"""
of core-tuning alone:
  {TRAIN_ARGS} ARGS   arguments of train that sweep has no option for, in one word:
                      {TRAIN_ARGS} "--checkpoint_freq 100 --skip_model_save"
{_WORKERS_NOTE}

After launch the exit code is 1 if a job left no 'done', and these are listed with the last line
of their err.txt. A launcher of the checkout's own may return before its jobs have ended: then only
those whose err.txt ends in an error count as failed.
"""
# What a job's folder is named after; given again, it would be another job in that folder.
_OF_THE_SWEEP = (
    "--dataset", "--algorithm", "--test_envs", "--holdout_fraction", "--hparams_seed",
    "--data_dir", "--task", "--trial_seed", "--seed", "--steps", "--hparams", "--output_dir",
)  # fmt: skip
# What DomainBed makes the jobs of a sweep of.
_OF_JOBS = (
    "n_trials", "dataset_names", "algorithms", "n_hparams_from", "n_hparams", "steps", "data_dir",
    "task", "holdout_fraction", "single_test_envs", "hparams",
)  # fmt: skip
STOCK_HEAD = "python -m domainbed.scripts.train"
# Of DomainBed's launchers, the one that starts nothing, and those that wait for their jobs.
PRINTING = "dummy"
WAITING = ("local", "multi_gpu")
# The last line of a traceback, or of a mistake that `core-tuning` reports.
_ENDED_IN_ERROR = re.compile(r"^([\w.]*(Error|Exception|Interrupt|Exit)\b|core-tuning: error: )")


def _command(function: Command) -> Command:
    """Refuse arguments that DomainBed cannot write, and say that its scripts cannot go on."""

    @functools.wraps(function)
    def run(arguments: Sequence[str]) -> int:
        for argument in arguments:
            # DomainBed writes them into its files; the names of files may be any bytes.
            if any("\ud800" <= letter <= "\udfff" for letter in argument):
                raise UserError(
                    f"The argument {argument!a} is not UTF-8, in which DomainBed writes it into "
                    "its files: rename it or use another."
                )
        try:
            return function(arguments)
        except KeyboardInterrupt as stopped:
            by = f" by {stopped}" if isinstance(stopped, Stopped) else ""
            print(
                f"core-tuning: stopped{by}; DomainBed cannot resume: 'sweep delete_incomplete' "
                "removes unfinished jobs, and train starts anew.",
                file=sys.stderr,
            )
            return stopped.exit_code if isinstance(stopped, Stopped) else 130

    return run


def prepare() -> Path:
    """Make the checkout importable, register with it, and return its root.

    Raises:
        UserError: there is no checkout, or it cannot be registered with.
    """
    root = find_checkout()
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
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


@_command
def train(arguments: Sequence[str]) -> int:
    """Train as `python -m domainbed.scripts.train` does, with the same arguments and --workers.

    Raises:
        UserError: a mistake in the arguments, the data or the checkpoint.
    """
    if any(argument in HELP for argument in arguments):
        # Its own --help fails: argparse takes a per cent sign in it for a format.
        names = (f"  {name}" for name in options_of(script_path(find_checkout(), "train")))
        print(f"usage: {PROG} train [options]\n\nof DomainBed's train:", *names, sep="\n")
        print(f"\nof core-tuning alone:\n{_WORKERS_NOTE}")
        return 0
    own, rest = _own_options("train", arguments)
    prepare()
    options = _train_options(rest)
    try:
        from .domainbed_checks import check_train

        check_train(options)
        if own.workers is not None:
            _set_workers(own.workers)
        run_script("train", rest)
    except UserError as error:
        # Where DomainBed leaves its errors, for the jobs of a sweep, whose folders are there
        # before they start; where nothing can be written, as on a full disk, it is printed alone.
        with suppress(OSError):
            if Path(options.output_dir).is_dir():
                with Path(options.output_dir, "err.txt").open("a", encoding="utf-8") as file:
                    file.write(f"core-tuning: error: {error}\n")
        raise
    return 0


def _own_options(command: str, arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Take the options that are Core-tuning's out of a command line."""
    parser = Parser(prog=f"{PROG} {command}", add_help=False, allow_abbrev=False)
    parser.add_argument(WORKERS, type=int)
    if command == "sweep":
        parser.add_argument(TRAIN_ARGS, default="")
    own, rest = parser.parse_known_args(arguments)
    if own.workers is not None:
        check_range("workers", own.workers, WORKERS)
    return own, rest


def _train_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what the checks need; options of a checkout's own are left to its train."""
    parser = Parser(prog=f"{PROG} train", add_help=False)
    parser.add_argument("--dataset", default="RotatedMNIST")
    parser.add_argument("--algorithm", default="ERM")
    parser.add_argument("--output_dir", default="train_output")
    for name in ("data_dir", "hparams"):
        parser.add_argument(f"--{name}")
    for name in ("seed", "trial_seed", "hparams_seed"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0])
    parser.add_argument("--holdout_fraction", type=float, default=0.2)
    return parser.parse_known_args(arguments)[0]


def _set_workers(workers: int) -> None:
    """Set the number of processes that each loader of any data set starts."""
    datasets = importlib.import_module("domainbed.datasets")
    for value in vars(datasets).values():
        if isinstance(value, type) and issubclass(value, datasets.MultipleDomainDataset):
            value.N_WORKERS = workers  # type: ignore[attr-defined]


@_command
def sweep(arguments: Sequence[str]) -> int:
    """Run a sweep as `python -m domainbed.scripts.sweep` does, with the same arguments.

    Returns:
        1 if a job failed, else 0.

    Raises:
        UserError: a mistake for which jobs would fail or hang; nothing was launched.
    """
    # argparse takes a value that starts with dashes only behind an equals sign.
    joined = "\0".join(arguments).replace(f"{TRAIN_ARGS}\0", f"{TRAIN_ARGS}=")
    own, rest = _own_options("sweep", joined.split("\0") if joined else [])
    root = prepare()
    launchers = importlib.import_module(DOMAINBED_LAUNCHERS)
    if any(argument in HELP for argument in rest):
        try:
            run_script("sweep", rest)
        finally:
            print(SWEEP_NOTE + launchers.NOTE, end="")
        return 0
    train_arguments = _train_arguments(own, root)
    place, rest = launchers.take_place(rest)
    options = _sweep_options(rest)
    if options.command != "launch":
        run_script("sweep", rest)
        return 0
    from .domainbed_checks import check_jobs, check_launcher, check_sweep

    registry = importlib.import_module("domainbed.command_launchers").REGISTRY
    with _rewriting_launchers(registry, place, root, train_arguments):
        check_launcher(options.command_launcher)
        launchers.check(options.command_launcher, place)
        check_sweep(options)
        folders, jobs = _jobs(options)
        check_jobs(jobs)
        try:
            run_script("sweep", rest)
        except EOFError as error:
            raise UserError(
                "The sweep asks for confirmation and nobody can answer: add --skip_confirmation."
            ) from error
    waits = options.command_launcher in (*WAITING, *launchers.NAMES)
    return 0 if options.command_launcher == PRINTING else report(folders, waits=waits)


def _train_arguments(own: argparse.Namespace, root: Path) -> list[str]:
    try:
        words = shlex.split(own.train_args)
    except ValueError as error:
        raise UserError(
            f"{TRAIN_ARGS} is {own.train_args!r}, whose quotes do not match ({error}): quote it "
            "as a shell would."
        ) from error
    known = options_of(script_path(root, "train"))
    free = ", ".join(name for name in known if name not in _OF_THE_SWEEP)
    for word in (word.partition("=")[0] for word in words if word.startswith("--")):
        meant = [word] if word in known else [name for name in known if name.startswith(word)]
        if len(meant) != 1:
            raise UserError(
                f"{TRAIN_ARGS} has '{word}', which train does not know: expected {free}."
            )
        if meant[0] in _OF_THE_SWEEP:
            raise UserError(
                f"{TRAIN_ARGS} has '{meant[0]}', which the sweep sets for each job: give it to the "
                f"sweep itself where it has it; {TRAIN_ARGS} takes {free}."
            )
    return words if own.workers is None else [*words, WORKERS, str(own.workers)]


def _sweep_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what the checks need; options of a checkout's own are left to its sweep."""
    module = importlib.import_module("domainbed.scripts.sweep")
    parser = Parser(prog=f"{PROG} sweep")
    parser.add_argument("command", choices=["launch", "delete_incomplete"])
    parser.add_argument("--datasets", dest="dataset_names", nargs="+", default=module.DATASETS)
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


def _jobs(options: argparse.Namespace) -> tuple[list[Path], list[dict[str, Any]]]:
    """Return the folders of the sweep's jobs and the arguments that each gives to train."""
    module = importlib.import_module("domainbed.scripts.sweep")
    jobs = module.make_args_list(**{name: getattr(options, name) for name in _OF_JOBS})
    return [Path(module.Job(job, options.output_dir).output_dir) for job in jobs], jobs


@contextmanager
def _rewriting_launchers(
    registry: MutableMapping[str, Launcher], place: Any, root: Path, extra: Sequence[str]
) -> Iterator[None]:
    """Make the launchers of DomainBed and ours start commands that know our names, for a while."""
    from .registration import add_launchers

    originals = dict(registry)
    add_launchers(registry, place)
    for name, launcher in registry.items():
        registry[name] = _rewriting(launcher, root, extra)
    try:
        yield
    finally:
        registry.clear()
        registry.update(originals)


def _rewriting(launcher: Launcher, root: Path, extra: Sequence[str]) -> Launcher:
    """Return a launcher of the commands that DomainBed's sweep makes, each started as one of ours.

    That one knows our names wherever it runs, and has further arguments of train.
    """
    head = (
        f"{ROOT_VARIABLE}={shlex.quote(str(root))} {shlex.quote(sys.executable)} -m core_tuning "
        "domainbed train"
    )

    def rewrite(command: str) -> str:
        if not command.startswith(f"{STOCK_HEAD} "):
            raise UserError(
                f"This checkout's sweep starts its jobs by '{command.split(' --')[0]}' where "
                f"'{STOCK_HEAD}' was expected: use another, or '{PROG} enable'."
            )
        return " ".join([head + command.removeprefix(STOCK_HEAD), *map(shlex.quote, extra)])

    return lambda commands: launcher([rewrite(command) for command in commands])


def report(folders: Sequence[Path], *, waits: bool) -> int:
    """Print the jobs of a sweep that left no `done`; return the exit code: 1 if one failed.

    Args:
        folders: of the jobs.
        waits: whether the launcher waits for its jobs, so that every such job failed. Others, such
            as one for Slurm, return while jobs wait or run: there a job failed if its err.txt ends
            in an error, and the rest, which is not finished yet, is only counted.
    """
    open_jobs = [folder for folder in folders if not (folder / "done").exists()]
    failed = [folder for folder in open_jobs if waits or _ENDED_IN_ERROR.match(_last_error(folder))]
    if len(open_jobs) > len(failed):
        print(f"{len(open_jobs) - len(failed)} of {len(folders)} jobs are not finished yet.")
    if not failed:
        return 0
    print(
        f"core-tuning: {len(failed)} of {len(folders)} jobs left no 'done'; after mending what "
        "stopped them, run the sweep with delete_incomplete in place of launch, then launch again:",
        file=sys.stderr,
    )
    for folder in failed:
        print(f"  {folder}: {_last_error(folder) or 'nothing in err.txt'}", file=sys.stderr)
    return 1


def _last_error(folder: Path) -> str:
    """Return the last line of a job's err.txt, or ""."""
    file = folder / "err.txt"
    if not file.is_file():
        return ""
    lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    # A progress bar or warning overwrites its line.
    written = [line.split("\r")[-1].strip() for line in lines]
    return next((line for line in reversed(written) if line), "")


@_command
def collect_results(arguments: Sequence[str]) -> int:
    """Print DomainBed's tables of the runs in a folder.

    Raises:
        UserError: a line of a run cannot be read, or DomainBed has no table for any of the runs.
    """
    parser = Parser(prog=f"{PROG} collect_results", add_help=False)
    parser.add_argument("--input_dir")
    parser.add_argument("--auto_lr", action="store_true")
    return _of_results("collect_results", arguments, parser)


@_command
def list_top_hparams(arguments: Sequence[str]) -> int:
    """Print DomainBed's list of the best hyper-parameters of the runs in a folder.

    Raises:
        UserError: a line of a run cannot be read, or no run is one of those asked for.
    """
    parser = Parser(prog=f"{PROG} list_top_hparams", add_help=False)
    for name in ("input_dir", "dataset", "algorithm", "test_env"):
        parser.add_argument(f"--{name}")
    return _of_results("list_top_hparams", arguments, parser)


def _of_results(script: str, arguments: Sequence[str], parser: Parser) -> int:
    prepare()
    options = parser.parse_known_args(arguments)[0]
    # What is missing is for the script to say.
    if None not in vars(options).values() and not set(HELP) & set(arguments):
        from .domainbed_checks import check_results

        check_results(options)
    run_script(script, arguments)
    return 0
