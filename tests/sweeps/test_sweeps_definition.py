"""Definitions become runs: cells, seeds, identities, settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core_tuning.errors import UserError
from core_tuning.sweeps.expand import load_sweep

AXIS = '[axes]\ndataset = ["dtd", "pets"]\n'


def test_every_combination_is_a_run(define):
    sweep = load_sweep(define(AXIS))
    assert (sweep.name, sweep.title, sweep.paper) == ("mine", "mine", [])
    assert [run.title for run in sweep.runs] == [
        f"{row}, {dataset}, seed {seed}"
        for seed in (0, 1) for row in ("CE", "Core-tuning") for dataset in ("dtd", "pets")
    ]  # fmt: skip
    run = sweep.runs[1]
    assert run.cell == {"row": "CE", "dataset": "pets"}
    assert run.argvs("{folder}") == [
        ["finetune", "--method", "ce", "--dataset", "pets", "--seeds", "0", "--output", "{folder}",
         "--resume"],
    ]  # fmt: skip
    assert run.done == "result.json"
    assert len({run.id for run in sweep.runs}) == 8


def test_an_id_is_the_same_in_every_process():
    """A changed id would make everybody's finished runs be made again."""
    program = (
        "from core_tuning.sweeps.expand import load_sweep\n"
        "print(load_sweep('table02', only={'dataset': ['dtd'], 'row': ['CE']}).runs[0].id)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "803e59b01d61", run.stderr


def test_an_id_ignores_the_machine_alone(define):
    plain = load_sweep(define()).runs[0].id
    machine = {"workers": "7", "data_dir": "/elsewhere", "device": "cpu", "download": "true"}
    assert load_sweep(define(), settings=machine).runs[0].id == plain
    for name, value in (("lr", "0.5"), ("pretrained", "random"), ("dataset", "dtd")):
        assert load_sweep(define(), settings={name: value}).runs[0].id != plain


def test_an_id_ignores_how_a_number_is_written(define):
    ids = {
        load_sweep(define(f"[options]\n{given}\n")).runs[0].id
        for given in ("eta = 1", "eta = 1.0", 'eta = "1"', "eta = 1\nworkers = 3")
    }
    assert len(ids) == 1


def test_a_folder_of_images_is_its_data_set(define):
    more = '[options]\ndataset = "folder"\n[axes]\ndata_dir = ["cats", "dogs"]\n'
    assert len({run.id for run in load_sweep(define(more)).runs}) == 8


def test_only_seeds_and_settings(define):
    sweep = load_sweep(
        define(AXIS),
        seeds=[7],
        only={"dataset": ["pets"], "row": ["Core-tuning"]},
        settings={"pretrained": "moco.pth", "nesterov": "false", "focal": "false"},
    )
    (run,) = sweep.runs
    assert (run.seed, run.cell) == (7, {"row": "Core-tuning", "dataset": "pets"})
    (step,) = run.argvs("{folder}")
    assert step[step.index("--pretrained") + 1] == "moco.pth"
    assert {"--no-nesterov", "--no-focal"} <= set(step)


def test_hyper_parameters_of_dg_are_merged_one_by_one():
    settings = {"hparams.checkpoint": "my.pth", "hparams.weight_decay": "0.01", "steps": "5"}
    run = load_sweep("table08", settings=settings).runs[0]
    (step,) = run.argvs("{folder}")
    assert step[step.index("--hparams") + 1] == '{"checkpoint": "my.pth", "weight_decay": 0.01}'
    assert step[step.index("--steps") + 1] == "5"
    assert run.done == "done"
    assert run.argvs("{folder}")[0][-5:] == ["--seeds", "0", "--output", "{folder}", "--resume"]


def test_domainbed_has_its_own_names():
    (step,) = load_sweep("table08_domainbed", seeds=[3]).runs[0].argvs("{folder}")
    assert step[:2] == ["domainbed", "train"]
    assert {"--data_dir", "--test_envs", "--trial_seed", "--output_dir"} <= set(step)
    assert "--resume" not in step
    assert [step[step.index(flag) + 1] for flag in ("--trial_seed", "--seed")] == ["3", "3"]


def test_robust_trains_and_then_measures():
    adversarial, *_, plain = load_sweep("table09", seeds=[0]).runs
    train, evaluate = adversarial.argvs("{folder}")
    assert train[:2] == ["robust", "train"]
    assert train[-3:] == ["--output", "{folder}", "--resume"]
    assert evaluate[:3] == ["robust", "evaluate", "{folder}"]
    text = " ".join(evaluate)
    assert "--norm l2 --l2 0.5 --resume" in text
    assert "--data-dir data --attacks pgd10 autoattack --n 1000" in text
    assert adversarial.done == "robustness/report.json"
    train, evaluate = plain.argvs("{folder}")
    assert train[0] == "finetune"
    budgets = "--norm l2 linf --l2 0.5 1.5 2.5 --linf 2/255 4/255 8/255"
    assert budgets in " ".join(evaluate)


def test_settings_reach_the_evaluation():
    settings = {"evaluate.n": "all", "evaluate.attacks": "pgd10,square"}
    run = load_sweep("table14", settings=settings).runs[0]
    assert "--attacks pgd10 square --n all" in " ".join(run.argvs("{folder}")[1])


def test_options_that_can_only_be_switched_off():
    for text, expected in (("true", []), ("false", ["--no-focal"])):
        (step,) = (
            load_sweep("table23", seeds=[0], settings={"focal": text}).runs[-1].argvs("{folder}")
        )
        assert [word for word in step if "focal" in word] == expected
    (step,) = (
        load_sweep("table23", settings={"nesterov": "true", "compile": "false"})
        .runs[0]
        .argvs("{folder}")
    )
    assert "--nesterov" in step
    assert not any("compile" in word for word in step)


def test_what_all_rows_are_given_is_for_those_that_have_it():
    ce, *_, core_tuning = load_sweep("table23", seeds=[0], settings={"eta": "3"}).runs
    assert "--eta" not in ce.argvs("{folder}")[0]
    assert (
        core_tuning.argvs("{folder}")[0][core_tuning.argvs("{folder}")[0].index("--eta") + 1] == "3"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("method = 'ce'\nsteps = 3\nepochs = 2", "--steps is 3 and --epochs is 2: give one"),
        ("method = 'core_tunin'", "argument --method: invalid choice: 'core_tunin'"),
        ("accumulate = 3\nbatch_size = 10", "--accumulate is 3, which does not divide"),
    ],
)
def test_a_run_that_its_command_would_refuse_is_refused_at_once(tmp_path, given, said):
    path = tmp_path / "mine.toml"
    path.write_text(f'title = "mine"\ncommand = "finetune"\n[options]\n{given}\n')
    with pytest.raises(UserError, match=said):
        load_sweep(str(path))


def test_a_seed_of_all_parts_comes_before_the_next():
    seeds = [run.seed for run in load_sweep("emoji").runs]
    assert seeds == sorted(seeds)


def test_the_small_setting_is_smaller():
    full, small = load_sweep("emoji"), load_sweep("emoji", small=True)
    assert len(small.runs) < len(full.runs) / 2
    assert {run.cell["part"] for run in small.runs} == {run.cell["part"] for run in full.runs}
    assert {run.cell.get("budget") for run in small.runs} == {None, "l2 0.5", "linf 4/255"}
    assert {run.seed for run in load_sweep("emoji", small=True, seeds=[9]).runs} == {9}
    evaluations = [
        " ".join(run.argvs("{folder}")[1]) for run in small.runs if len(run.argvs("{folder}")) > 1
    ]
    assert all("--n 100 --no-masking-checks" in evaluation for evaluation in evaluations)


def test_parts_without_an_axis_are_left_out_by_only():
    runs = load_sweep("emoji", only={"target": ["mono"]}).runs
    assert {run.cell["part"] for run in runs} == {"domains"}
    runs = load_sweep("emoji", only={"part": ["plain", "domains"], "row": ["CE"]}).runs
    assert {run.cell["part"] for run in runs} == {"domains", "plain"}


@pytest.mark.parametrize("suffix", ["", "[machine]\nunit = 'core'\ntflops = 0.1\n"])
def test_the_definition_is_kept_as_it_was_written(define, suffix):
    path = define(suffix)
    assert load_sweep(path).definition == Path(path).read_text()
