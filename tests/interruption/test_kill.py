"""kill -9 at random moments, for real: the run that goes on ends as an uninterrupted one does.

Moments are counted in changes of files, not in seconds, which would reach other steps on a faster
machine.
"""

from __future__ import annotations

import os
import random
import time

import pytest

KILLS = 2
# Ten times two moments; all but the first with `pytest -m slow`.
SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))]
FINETUNE = (
    "--dataset", "folder", "--data-dir", "{base}/data", "--pretrained", "embedded",
    "--transforms", "small", "--image-size", 16, "--batch-size", 8, "--epochs", 3,
    "--checkpoint-minutes", 0, "--output", "out",
)  # fmt: skip
DG = (
    "dg", "--dataset", "toys", "--data_dir", "{base}", "--image-size", 16, "--steps", 24,
    "--eval-every", 8, "--checkpoint-minutes", 0, "--output_dir", "out", "--hparams",
    '{"checkpoint": "embedded", "batch_size": 4, "resnet_dropout": 0.3}',
)  # fmt: skip
# Twelve runs on the whole embedded set would take minutes.
SHORT_DEMO = """
from core_tuning.algorithms import demo, environments
del demo.CHOSEN["ce_con"]
for values in demo.CHOSEN.values():
    values["batch_size"] = 4
load = environments.load_environments
def few(*arguments, **options):
    found = load(*arguments, **options)
    return found._replace(images=[each.subset(range(0, len(each), 8)) for each in found.images])
environments.load_environments = few
"""
COMMANDS = {
    "finetune": ("finetune", *FINETUNE, "--workers", 1),
    "finetune --ema": ("finetune", *FINETUNE, "--workers", 0, "--ema", 0.9, "--method", "ce"),
    "robust train": (
        "robust", "train", *FINETUNE, "--attack-steps", 2, "--ema", 0.9, "--eps-warmup", 0.5, 1,
        "--workers", 0,
    ),
    "dg": (*DG, "--workers", 1),
    "dg, two runs": (*DG, "--workers", 0, "--steps", 6, "--eval-every", 2, "--trial_seed", 0, 1),
    "robust evaluate": (
        "robust", "evaluate", "{base}/run", "--l2", 0.3, "--linf", "2/255", "--attacks", "fgsm",
        "pgd10", "--no-masking-checks", "--workers", 0, "--output", "out", "--batch-size", 5,
    ),
    "demo": ("demo", "--seeds", 0, "--steps", 2, "--output", "out"),
}  # fmt: skip
PRELUDES = {"demo": SHORT_DEMO}


def stamps(folder):
    """Each file's time of change; those in the middle of being written come and go."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found[parent, name] = os.stat(f"{parent}/{name}").st_mtime_ns  # noqa: PTH116
            except FileNotFoundError:
                continue
    return found


def count_changes(command, folder, most):
    """Count how often files changed until the command ended, or `most` times."""
    seen, changes = stamps(folder), 0
    while command.is_alive() and changes < most:
        time.sleep(0.001)
        now = stamps(folder)
        if now != seen:
            changes += 1
        seen = now
    return changes


class Uninterrupted:
    """What each command leaves when nothing stops it, and how often files change meanwhile."""

    def __init__(self, kit, shelf):
        self.kit, self.shelf = kit, shelf
        self.known = {}

    def argv(self, name):
        return [str(word).replace("{base}", str(self.shelf)) for word in COMMANDS[name]]

    def __getitem__(self, name):
        if name == "robust evaluate" and not (self.shelf / "run").exists():
            self._run("finetune", self.shelf / "making")
            (self.shelf / "making" / "out").rename(self.shelf / "run")
        if name not in self.known:
            folder = self.shelf / f"whole {name}"
            changes = self._run(name, folder)
            self.known[name] = self.kit.outcome(folder / "out"), changes
        return self.known[name]

    def _run(self, name, folder):
        command = self.kit.Command(folder, self.argv(name), PRELUDES.get(name, ""))
        changes = count_changes(command, folder, float("inf"))
        command.finish()
        return changes


@pytest.fixture(scope="session")
def uninterrupted(kit, shelf):
    return Uninterrupted(kit, shelf)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_and_resumed(kit, run, uninterrupted, tmp_path, name, seed):
    if name.startswith("robust"):
        pytest.importorskip("torchattacks")
    whole, changes = uninterrupted[name]
    moments = random.Random(f"{name} {seed}")
    argv, resume = uninterrupted.argv(name), []
    kills = []
    for _ in range(KILLS):
        command = run(tmp_path / "work", [*argv, *resume], prelude=PRELUDES.get(name, ""))
        kills.append(moments.randint(1, max(1, changes * 2 // 3)))
        count_changes(command, tmp_path / "work", kills[-1])
        time.sleep(moments.uniform(0, 0.01))
        command.kill()
        kit.check_readable(tmp_path / "work")
        resume = ["--resume"]
    run(tmp_path / "work", [*argv, *resume], prelude=PRELUDES.get(name, "")).finish()
    assert kit.differing(whole, kit.outcome(tmp_path / "work" / "out")) == [], kills
