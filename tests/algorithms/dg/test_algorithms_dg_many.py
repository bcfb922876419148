"""Several runs in one call: their folders, their table, and that none changes another."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from PIL import Image

from core_tuning.algorithms.environments import load_environments, split_environment

QUICK = ("--algorithm", "CETuning", "--steps", 2, "--skip_model_save")


@pytest.fixture(scope="module")
def pairs(kit, tmp_path_factory):
    """Each domain and each pair of them as targets."""
    output = tmp_path_factory.mktemp("pairs")
    return kit.run(output, *QUICK, "--test_envs", "pairs", "--trial_seed", 4)


def folders(output):
    return sorted(path.name for path in output.iterdir() if path.is_dir())


def test_folders(kit, pairs, tmp_path):
    targets = ["0-1", "0-2", "0", "1-2", "1", "2"]
    assert folders(pairs) == [f"ce_target{name}_hparams0_seed4" for name in targets]
    output = kit.run(tmp_path, *QUICK, "--algorithm", "CECon", "CETuning", "--trial_seed", 0, 3,
                     "--hparams_seed", 0, 5, "--test_envs", 2, "--steps", 1)  # fmt: skip
    assert folders(output) == [
        f"{name}_target2_hparams{hparams}_seed{trial}"
        for name in ("ce_con", "ce")
        for hparams in (0, 5)
        for trial in (0, 3)
    ]
    for folder in output.iterdir():
        if folder.is_dir():
            args = kit.records(folder)[0]["args"]
            method = {"CECon": "ce_con", "CETuning": "ce"}[args["algorithm"]]
            told = f"{method}_target2_hparams{args['hparams_seed']}_seed{args['trial_seed']}"
            assert folder.name == told
            assert args["seed"] == args["trial_seed"]


def test_table_of_all_three_rules(kit, pairs, capsys):
    capsys.readouterr()
    kit.run(pairs, *QUICK, "--test_envs", "pairs", "--trial_seed", 4, "--resume")
    out = capsys.readouterr().out
    *_, first, second, third = out.strip().split("\n\n")
    for table in (first, second, third):
        _, header, row = table.splitlines()
        assert header.split() == ["target", "0", "brush", "1", "cut", "2", "dots", "mean"]
        values = [float(value) for value in row.split()[1:]]
        assert values[3] == pytest.approx(sum(values[:3]) / 3, abs=0.01)
    assert "leave-one-domain-out" in second
    oracle = [
        100 * kit.records(pairs / f"ce_target{i}_hparams0_seed4")[-1][f"env{i}_in_acc"]
        for i in range(3)
    ]
    assert [float(v) for v in third.split()[-4:-1]] == pytest.approx(oracle, abs=0.01)
    assert "run 6 of 6" in out


def test_selection_names_folders_that_exist(kit, pairs):
    chosen = json.loads((pairs / "selection.json").read_text())
    assert chosen.pop("made_by") == "core-tuning"
    assert [len(cells) for cells in chosen.values()] == [3, 3, 3]
    for cells in chosen.values():
        for cell in cells:
            folder = pairs / cell["folder"].split("/")[-1]
            (record,) = [r for r in kit.records(folder) if r["step"] == cell["step"]]
            assert record[f"env{cell['target']}_in_acc"] == cell["test"]


def test_leave_one_out_appears_with_pairs_alone(kit, tmp_path, capsys):
    output = kit.run(tmp_path, *QUICK, "--steps", 1, "--test_envs", "all")
    assert len(folders(output)) == 3
    assert "no runs for it; it needs --test_envs pairs" in capsys.readouterr().out
    chosen = json.loads((output / "selection.json").read_text())
    del chosen["made_by"]
    assert [len(cells) for cells in chosen.values()] == [3, 0, 3]


def test_a_run_among_others_is_the_run_alone(kit, tmp_path):
    options = ("--steps", 3, "--trial_seed", 2)
    many = kit.run(tmp_path / "many", *options, "--test_envs", "all", "--algorithm", "CECon",
                   "CoreTuning", eta=1.0, resnet_dropout=0.2)  # fmt: skip
    # What was drawn before a run must not matter to it.
    torch.manual_seed(99)
    alone = kit.run(tmp_path / "alone", *options, "--test_envs", 1, eta=1.0, resnet_dropout=0.2)
    kit.assert_same_run(many / "core_tuning_target1_hparams0_seed2", alone)


def test_two_targets_at_once(kit, tmp_path):
    run = kit.run(tmp_path, *QUICK, "--test_envs", 2, 0, batch_size=29)
    # 29 of cut's 29 images fit, and would not in brush's 24.
    record = kit.records(run)[0]
    assert record["args"]["test_envs"] == [2, 0]
    assert record["hparams"]["batch_size"] == 29


@pytest.mark.parametrize(
    ("domain", "part", "changes"),
    [("cut", "inside", False), ("cut", "outside", False), ("dots", "outside", False),
     ("dots", "inside", True)],
)  # fmt: skip
def test_only_the_sources_in_splits_are_trained_on(kit, finished, tmp_path, domain, part, changes):
    """Other images in their place change the weights, and those of any other split do not."""
    shutil.copytree(kit.data / "toys", tmp_path / "toys")
    number = list(kit.DOMAINS).index(domain)
    images = load_environments("toys", tmp_path).images[number]
    split = split_environment(len(images), 0.2, 0, number)
    for index in getattr(split, part):
        Image.new("RGB", (16, 16), (9, 99, 200)).save(images.paths[index])
    run = kit.run(tmp_path / "run", "--data_dir", tmp_path, "--test_envs", 1)
    before, after = kit.weights(finished), kit.weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before) is not changes


def test_the_demos_runs_say_how_they_are_made():
    """Each is stored with its own hyper-parameters, by which it can go on alone."""
    from core_tuning.algorithms import demo
    from core_tuning.algorithms.config import Demo

    options = Demo.read("core-tuning demo", ["--steps", "4", "--seeds", "0"])
    plans = demo.plan(options, load_environments("EmojiDomains", None))
    assert len(plans) == 12
    for planned in plans:
        (method,) = planned.options.method
        assert planned.options.hparams == demo.CHOSEN[method]
        assert planned.options.steps == 4
