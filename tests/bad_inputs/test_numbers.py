"""Each numeric option of each command, at numbers beyond all reason.

Those that are taken all the same are listed; an option that is new here is refused them all.
"""

from __future__ import annotations

import importlib

import pytest

HUGE, NAN, INFINITE, NEGATIVE = "1e300", "nan", "inf", "-1"
SEED, TERA, GIANT = str(2**64), str(10**12), str(10**30)
VALUES = (HUGE, NAN, INFINITE, NEGATIVE, SEED, TERA, GIANT)
SMALL = (
    "--dataset folder --data-dir data --pretrained embedded --transforms small --image-size 16 "
    "--batch-size 8 --epochs 1 --workers 0 --output out"
)
# command -> module of its parser, its function that begins to work, and a line that it takes.
COMMANDS = {
    "finetune": (
        "classification.options", "core_tuning.training.run.fit", f"{SMALL} --limit-steps 1",
    ),
    "robust train": (
        "robustness.train_options", "core_tuning.training.run.fit", f"{SMALL} --limit-steps 1",
    ),
    "evaluate": ("classification.evaluate", "core_tuning.training.evaluate", "run"),
    "robust evaluate": (
        "robustness.evaluate_options", "core_tuning.robustness.evaluation_report.measure_clean",
        "run --output out",
    ),
    "dg": (
        "algorithms.dg_options", "core_tuning.algorithms.dg_run._Run.go",
        '--dataset toys --data_dir . --hparams {"checkpoint":"embedded","batch_size":4} '
        "--image-size 16 --workers 0 --output_dir out",
    ),
    "demo": ("algorithms.demo", "core_tuning.algorithms.dg_run._Run.go", "--output out"),
}  # fmt: skip


class Reached(BaseException):
    """The command has begun to work: it has taken the number."""


def numeric(command):
    parser = importlib.import_module(f"core_tuning.{COMMANDS[command][0]}").build_parser()
    return {
        action.option_strings[0]: (action.nargs if isinstance(action.nargs, int) else 1)
        for action in parser._actions
        if action.type in (int, float)
    }


ROWS = [
    pytest.param(command, option, value, count, id=f"{command} {option} {value}")
    for command in COMMANDS
    for option, count in numeric(command).items()
    for value in VALUES
]


@pytest.mark.parametrize(("command", "option", "value", "count"), ROWS)
def test_a_number(room, capfd, monkeypatch, command, option, value, count):
    def reached(*_, **__):
        raise Reached

    _, works, line = COMMANDS[command]
    monkeypatch.setattr(works, reached)
    line = f"{command} {line} {option} {' '.join([value] * count)}"
    room.bring_what_is_named(line)
    room.refuse(capfd, line, ".")
