"""`core-tuning robust`: adversarial fine-tuning and the evaluation of robustness."""

from __future__ import annotations

import difflib
import importlib

from core_tuning.errors import UserError

# Sub-command -> (module with main(argv), what it does).
COMMANDS = {
    "train": ("train", "fine-tune adversarially"),
    "evaluate": ("evaluate", "measure clean and robust accuracy, and look for masked gradients"),
}


def main(argv: list[str]) -> int:
    """Run a sub-command."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    command, *rest = argv
    if command not in COMMANDS:
        nearest = difflib.get_close_matches(command, COMMANDS, n=1)
        hint = f"; did you mean '{nearest[0]}'?" if nearest else "."
        raise UserError(f"'robust {command}' is no command: expected train or evaluate{hint}")
    module, _ = COMMANDS[command]
    return importlib.import_module(f".{module}", __package__).main(rest)


def _help() -> str:
    lines = [
        "usage: core-tuning robust train|evaluate [options]",
        "",
        *(f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "core-tuning robust COMMAND --help lists a command's options.",
    ]
    return "\n".join(lines)
