"""The commands of a run do what its definition says: they make its folder, and the file of done."""

from __future__ import annotations

import json

import pytest

from core_tuning.cli import main
from core_tuning.errors import UserError
from core_tuning.sweeps import arguments
from core_tuning.sweeps.definition import load_sweep

TINY = {
    "fraction": "0.1", "batch_size": "16", "image_size": "16", "limit_steps": "1", "workers": "0",
    "steps": "1", "evaluate.n": "8", "evaluate.attacks": "fgsm", "evaluate.workers": "0",
    "evaluate.masking_checks": "false",
}  # fmt: skip


def test_each_part_of_emoji_ends_with_its_file(tmp_path):
    """Twice, because --resume must both start a run and leave a finished one alone."""
    pytest.importorskip("torchattacks")
    runs = load_sweep("emoji", small=True, seeds=[4], settings=TINY).runs
    first = {run.cell["part"]: run for run in reversed(runs)}
    assert set(first) == {"ablation", "domains", "adversarial", "plain"}
    for part, run in first.items():
        folder = tmp_path / run.id
        for attempt in range(2):
            assert (folder / run.done).exists() == bool(attempt), part
            for step in run.steps:
                words = [str(folder) if word == arguments.FOLDER else word for word in step]
                assert main(words) == 0
        seed = "trial_seed" if part == "domains" else "seed"
        assert json.loads((folder / "config.json").read_text())["config"][seed] == 4
    report = json.loads((tmp_path / first["plain"].id / first["plain"].done).read_text())
    measured = {(row["norm"], row["eps"]) for row in report["rows"]}
    linf = {("linf", numerator / 255) for numerator in (2, 4, 8)}
    assert measured == {("l2", 0.5), ("l2", 1.5), ("l2", 2.5)} | linf


def test_options_of_domainbed_are_those_of_its_script():
    from core_tuning.algorithms.checkout import find_checkout
    from core_tuning.algorithms.script_options import options_of
    from core_tuning.algorithms.scripts import script_path

    try:
        root = find_checkout()
    except UserError as error:
        pytest.skip(str(error))
    known = {name.lstrip("-") for name in options_of(script_path(root, "train"))}
    ours = {"trial_seed", "seed", "output_dir"}
    assert known - ours == set(arguments.known_options("domainbed")) - {"workers"}
