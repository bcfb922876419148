"""`core-tuning sweep`: the runs behind a table of the paper, as one command."""

from __future__ import annotations

import importlib

from core_tuning.options import check_name

# Sub-command -> (module with main(argv), what it does).
COMMANDS = {
    "list": ("listing", "the sweeps that can be run"),
    "run": ("run", "make the runs of a sweep, or go on with them; --dry-run only shows them"),
    "status": ("status", "what is done, running, failed and left"),
    "retry": ("retry", "make failed runs again"),
    "report": ("reporting.report", "tables and a page of what is finished, beside the paper's"),
}
_HELP = ("-h", "--help")


def main(argv: list[str]) -> int:
    """Run a sub-command."""
    if not argv or argv[0] in (*_HELP, "help"):
        print(_help())
        return 0
    command, *rest = argv
    check_name(command, COMMANDS, "'core-tuning sweep' has no command")
    module, _ = COMMANDS[command]
    if command == "run" and "--dry-run" in rest and not set(_HELP) & set(rest):
        module = "dry_run"
    return importlib.import_module(f".{module}", __package__).main(rest)


def _help() -> str:
    lines = [
        f"usage: core-tuning sweep {'|'.join(COMMANDS)} [options]",
        "",
        *(f"  {name:<8} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "core-tuning sweep COMMAND --help lists a command's options.",
    ]
    return "\n".join(lines)
