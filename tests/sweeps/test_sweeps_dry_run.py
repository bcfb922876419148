"""`core-tuning sweep run --dry-run`: the commands, and the arithmetic of the costs."""

from __future__ import annotations

import shlex

import pytest

from core_tuning.cli import main
from core_tuning.data.transforms import RECIPES, default_recipe
from core_tuning.sweeps import cost
from core_tuning.sweeps.expand import load_sweep


@pytest.fixture
def dry_run(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        assert main(["sweep", "run", *arguments, "--dry-run"]) == 0
        return capsys.readouterr().out.splitlines()

    return call


def test_commands_can_be_pasted(dry_run, tmp_path):
    lines = dry_run("table08", "--only", "target=PACS, photo", "row=CE", "--seeds", "3")
    (run,) = load_sweep("table08", seeds=[3], only={"target": ["PACS, photo"], "row": ["CE"]}).runs
    assert lines[0] == f"{run.id}  CE, PACS, photo, seed 3"
    words = shlex.split(lines[1])
    folder = f"runs/sweep-table08/runs/{run.id}"
    assert words == ["core-tuning", *run.argvs(folder)[0]]
    assert list(tmp_path.iterdir()) == []


def test_finished_runs_cost_nothing(dry_run, tmp_path):
    arguments = ("table23", "--seeds", "0", "--output", "out")
    before = dry_run(*arguments)
    assert "3 of 3 runs are left" in before[-2]
    run = load_sweep("table23", seeds=[0]).runs[0]
    folder = tmp_path / "out" / "runs" / run.id
    folder.mkdir(parents=True)
    (folder / run.done).touch()
    after = dry_run(*arguments)
    assert after[0] == f"{before[0]} (finished)"
    assert "2 of 3 runs are left" in after[-2]
    assert after[-1] != before[-1]


def test_hours_and_dollars(dry_run):
    flop = cost.cost_of(list(load_sweep("table23").runs)).flop
    hours = flop / 20e12 / 3600
    line = dry_run("table23", "--tflops", "20", "--price", "2")[-1]
    assert f"{hours:.3g} GPU hours at 20 TFLOP/s, ${2 * hours:,.2f} at $2 an hour" in line
    assert "GPU hours at 30 TFLOP/s." in dry_run("table23")[-1]
    assert "CPU core hours at 0.09 TFLOP/s" in dry_run("emoji", "--small")[-1]


def test_a_run_of_cifar():
    run = load_sweep("table23", seeds=[0]).runs[0]
    # 45,000 training images, three passes each, 5,000 validated after each of 100 epochs.
    assert run.forwards == pytest.approx(100 * (3 * 45_000 + 5_000) + 10_000)
    assert cost.flop(run) == pytest.approx(run.forwards * 8.2e9 * (256 / 224) ** 2)


def test_limits_count():
    settings = {"limit_steps": "10", "epochs": "2", "eval_every": "2"}
    run = load_sweep("table23", seeds=[0], settings=settings).runs[0]
    # Ten steps, of which each second one is followed by a look at 5,000 images.
    assert run.forwards == 3 * 10 * 256 + 5 * 5_000 + 10_000


def test_a_run_of_domain_generalisation():
    """docs/domain_generalisation.md has the same: 4.7e16 of training, 5.5e15 of evaluation."""
    run = load_sweep("table08", seeds=[0]).runs[0]
    assert run.forwards == 3 * 20_000 * 96 + 67 * 9_991
    assert cost.flop(run) == pytest.approx(4.7e16 + 5.5e15, rel=0.02)


def test_an_adversarial_run():
    """docs/robustness.md has the same: 1.36e18 for CIFAR-10."""
    settings = {"evaluate.attacks": "fgsm", "evaluate.masking_checks": "false"}
    run = load_sweep("table09", seeds=[0], settings=settings).runs[0]
    assert run.argvs("{folder}")[0][:2] == ["robust", "train"]
    assert cost.flop(run) == pytest.approx(1.36e18, rel=0.02)
    trained, validated, tested = 26 * 45_000 * 100, 22 * 5_000 * 100, 22 * 10_000
    assert run.forwards == pytest.approx(trained + validated + tested + 1000 * (1 + 3))
    attacked = load_sweep("table09", seeds=[0]).runs[0]
    assert attacked.forwards == run.forwards + 1000 * (21 + 9000 - 3) + 200 * 2000


def test_what_is_unknown_is_said(dry_run, define):
    lines = dry_run(define('[axes]\ndataset = ["folder", "dtd"]\n'))
    assert "Not in it: 4 runs whose data set or encoder" in lines[-1]
    lines = dry_run(define(), "--set", "encoder=timm:vit_small_patch16_224.dino")
    assert "Not in it: 4 runs" in lines[-1]
    assert not any("Estimated cost" in line for line in lines)


def test_sizes_are_those_of_the_transforms():
    for name in ("cifar10", "cifar100", "aircraft", "emoji_domains", "dtd", "pets", "imagenet20"):
        assert cost._SIZES.get(name, 224) == RECIPES[default_recipe(name)][1]


def test_floating_point_operations_of_the_small_encoder():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from core_tuning.encoders import SmallResNet

    gflop, pixels = cost._GFLOP["small_resnet"]
    with FlopCounterMode(display=False) as counter:
        SmallResNet().eval()(torch.zeros(1, 3, pixels, pixels))
    assert gflop == pytest.approx(counter.get_total_flops() / 1e9, rel=0.02)


def test_images_of_the_embedded_set():
    from core_tuning.algorithms.environments import load_environments
    from core_tuning.data import load_splits

    splits = load_splits("emoji_domains", None, validation=0.0, seed=0)
    assert {"train": len(splits.train), "test": len(splits.test)} == cost._EMOJI
    environments = load_environments("EmojiDomains", None)
    images = sum(len(each) for each in environments.images)
    assert (len(environments.names), images) == cost._EMOJI_DOMAINS
