"""The command `core-tuning domainbed`: Core-tuning in a DomainBed checkout."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence

from core_tuning.errors import UserError
from core_tuning.options import Parser
from core_tuning.stopping import Stopped

from . import checkout, doctor, enable, results, sweep, train
from .scripts import check_text

PROG = "core-tuning domainbed"
Command = Callable[[Sequence[str]], int]


def main(argv: list[str]) -> int:
    """Run a command of `COMMANDS`; return its exit code.

    Raises:
        UserError: a user's mistake.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    name, *arguments = argv
    for argument in argv:
        check_text(argument, "The argument")
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"expected one of {', '.join(COMMANDS)}."
        raise UserError(f"'{name}' is not a command of {PROG}: {hint}")
    command, _ = COMMANDS[name]
    try:
        return command(arguments)
    except KeyboardInterrupt as stopped:
        by = f" by {stopped}" if isinstance(stopped, Stopped) else ""
        print(
            f"core-tuning: stopped{by}; DomainBed cannot resume: 'sweep delete_incomplete' removes "
            "unfinished jobs, and train starts anew.",
            file=sys.stderr,
        )
        return stopped.exit_code if isinstance(stopped, Stopped) else 130


def _help() -> str:
    lines = [
        f"usage: {PROG} COMMAND [arguments]",
        "",
        "Use CoreTuning, CECon and CETuning in a DomainBed checkout, none of whose files changes.",
        f"It is the working folder, else ${checkout.ROOT_VARIABLE}, else the one of 'install'.",
        "",
        "commands:",
        *(f"  {name:<17} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        f"{PROG} COMMAND --help lists a command's options.",
    ]
    return "\n".join(lines)


def _install(arguments: Sequence[str]) -> int:
    parser = Parser(
        prog=f"{PROG} install",
        description="Clone DomainBed into the cache, where the other commands find it.",
    )
    parser.add_argument(
        "--source",
        metavar="URL|PATH",
        default=checkout.DEFAULT_SOURCE,
        help="git repository to clone (default: %(default)s)",
    )
    parser.add_argument(
        "--commit",
        metavar="SHA",
        help=f"commit, tag or branch (default: {checkout.DEFAULT_COMMIT[:7]} of DomainBed's own "
        "repository, the HEAD of any other)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the one that is there")
    args = parser.parse_args(arguments)
    root, commit = checkout.install(args.source, args.commit, overwrite=args.overwrite)
    print(f"DomainBed is at {root}, commit {commit}.")
    return 0


def _enable(arguments: Sequence[str]) -> int:
    Parser(
        prog=f"{PROG} enable",
        description="Make plain 'python -m domainbed.scripts.train' and sweep of this environment "
        "know CoreTuning, CECon, CETuning and EmojiDomains.",
    ).parse_args(arguments)
    file = enable.enable()
    print(
        f"Plain DomainBed commands of this environment know Core-tuning's names now, by {file}; "
        f"{enable.SWITCH}=0 suspends it, '{PROG} disable' ends it."
    )
    return 0


def _disable(arguments: Sequence[str]) -> int:
    Parser(prog=f"{PROG} disable", description="Undo 'enable'.").parse_args(arguments)
    undone = "not any more" if enable.disable() else "as before: it was not enabled"
    print(
        f"Plain DomainBed commands of this environment do not know Core-tuning's names, {undone}."
    )
    return 0


# command -> (function of its arguments, what it does).
COMMANDS: dict[str, tuple[Command, str]] = {
    "install": (_install, "clone DomainBed into the cache"),
    "doctor": (doctor.main, "say what a run needs, what is found, and what to do"),
    "train": (train.main, "DomainBed's train, with our names; same arguments and --workers"),
    "sweep": (sweep.main, "DomainBed's sweep, checked before and reported after"),
    "collect_results": (results.collect, "DomainBed's tables of a sweep's results"),
    "list_top_hparams": (results.list_top, "DomainBed's list of the best of a sweep"),
    "enable": (_enable, "make plain DomainBed commands of this environment know our names"),
    "disable": (_disable, "undo enable"),
}
