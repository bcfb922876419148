"""Each numeric option of each command, at numbers beyond all reason.

Those that are taken all the same are listed; an option that is new here is refused them all.
"""

from __future__ import annotations

import pytest

from core_tuning.commands import COMMANDS as TABLE
from core_tuning.options import make_parser

HUGE, NAN, INFINITE, NEGATIVE = "1e300", "nan", "inf", "-1"
SEED, TERA, GIANT = str(2**64), str(10**12), str(10**30)
VALUES = (HUGE, NAN, INFINITE, NEGATIVE, SEED, TERA, GIANT)
SMALL = (
    "--dataset folder --data-dir data --pretrained embedded --transforms small --image-size 16 "
    "--batch-size 8 --epochs 1 --workers 0 --output out"
)
# command -> its function that begins to work, and a line that it takes.
COMMANDS = {
    "finetune": ("core_tuning.training.classify.fit", f"{SMALL} --limit-steps 1"),
    "robust train": ("core_tuning.training.classify.fit", f"{SMALL} --limit-steps 1"),
    "evaluate": ("core_tuning.training.evaluate.evaluate", "run"),
    "robust evaluate": (
        "core_tuning.robustness.evaluate.right_without_attack", "run --output out",
    ),
    "dg": (
        "core_tuning.algorithms.dg_run.fit",
        '--dataset toys --data_dir . --hparams {"checkpoint":"embedded","batch_size":4} '
        "--image-size 16 --workers 0 --output_dir out",
    ),
    "demo": ("core_tuning.algorithms.dg_run.fit", "--output out"),
}  # fmt: skip
# option -> what it takes of VALUES: seeds below 2^63, and what is a number to float32.
REALS = (SEED, TERA, GIANT)
TAKEN = {
    **dict.fromkeys(
        ("--eta", "--alpha", "--temperature", "--lr", "--lr-decay", "--weight-decay"), REALS
    ),
    **dict.fromkeys(("--seed", "--seeds", "--hparams-seed"), (TERA,)),
}  # fmt: skip


class Reached(BaseException):
    """The command has begun to work: it has taken the number."""


def rows(*, taken):
    for command in COMMANDS:
        parser = make_parser(command, TABLE[command].options_class())
        for action in parser._actions:
            if action.type not in (int, float):
                continue
            option = action.option_strings[0]
            count = action.nargs if isinstance(action.nargs, int) else 1
            for value in VALUES:
                if (value in TAKEN.get(option, ())) == taken:
                    given = f"{option} {' '.join([value] * count)}"
                    yield pytest.param(command, given, id=f"{command} {option} {value}")


@pytest.fixture
def line(room, monkeypatch):
    """Return a command's line, which ends where the command begins to work."""

    def stop(*_, **__):
        raise Reached

    def make(command):
        works, options = COMMANDS[command]
        room.bring_what_is_named(f"{command} {options}")
        monkeypatch.setattr(works, stop)
        return f"{command} {options}"

    return make


@pytest.mark.parametrize(("command", "given"), list(rows(taken=False)))
def test_a_number_beyond_reason(room, capfd, line, command, given):
    """The sentence names the option, in whatever spelling, and the number."""
    option, value = given.split()[:2]
    name = option.strip("-").replace("-", "[-_ ]")
    said = {"nan": "nan", "inf": "inf"}.get(value, r"(-1|1e\+?\d+|\d{4,})")
    room.refuse(capfd, f"{line(command)} {given}", rf"{name}.*{said}")


@pytest.mark.parametrize(("command", "given"), list(rows(taken=True)))
def test_a_number_that_is_taken(room, line, command, given):
    with pytest.raises(Reached):
        room.run(f"{line(command)} {given}")
