"""Schedules, seeds, the state of a run, and the optimisers."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from core_tuning.errors import UserError
from core_tuning.objectives import LossTerms
from core_tuning.training.optimisation import (
    check_machine,
    choose_device,
    make_accelerator,
    make_optimizer,
    rate,
    share_cores,
)
from core_tuning.training.progress import Progress
from core_tuning.training.seeds import derive_seed, same_random_states, seed_everything
from core_tuning.training.state import TrainingState

STABLE_SEEDS = [3941715100300054245, 7989824608418557950, 660622766163689090]


@pytest.mark.parametrize(
    ("name", "quarter", "half", "end"),
    [
        ("cosine", 0.5 + math.sqrt(0.125), 0.5, 0.0),
        ("linear", 0.75, 0.5, 0.0),
        ("constant", 1.0, 1.0, 1.0),
    ],
)
def test_schedules(tiny, name, quarter, half, end):
    options = tiny.options(schedule=name, lr=0.2)
    assert [rate(options, step, 8) for step in (0, 2, 4, 8)] == pytest.approx(
        [0.2, 0.2 * quarter, 0.2 * half, 0.2 * end], abs=1e-12
    )


def test_the_exponential_schedule_ends_at_its_share(tiny):
    """As in DomainBed, of which the paper gives no rate: the last of five steps has lr_decay."""
    options = tiny.options(schedule="exponential", lr=1.0, lr_decay=0.01)
    expected = [1, 0.01**0.25, 0.1, 0.01**0.75, 0.01, 0.01]
    assert [rate(options, step, 5) for step in range(6)] == pytest.approx(expected)
    assert rate(options, 0, 1) == 1


@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "exponential"])
def test_schedules_fall_and_stay_above_zero(tiny, name):
    values = [rate(tiny.options(schedule=name), step, 100) for step in range(100)]
    assert min(values) > 0
    assert values == sorted(values, reverse=True)


def test_derived_seeds_are_stable():
    """They are part of every recorded result, so they never change."""
    assert derive_seed(0, 0, 0) == derive_seed(0, 0, 0)
    assert [derive_seed(0), derive_seed(0, 1), derive_seed(1, 0)] == STABLE_SEEDS


def test_derived_seeds_differ():
    inputs = [(seed, step, part) for seed in range(10) for step in range(50) for part in range(4)]
    seeds = {derive_seed(*parts) for parts in inputs}
    assert len(seeds) == len(inputs)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(1, 2) != derive_seed(2, 1)
    for seed in (derive_seed(3, 4), derive_seed(2**40)):
        torch.Generator().manual_seed(seed)


def test_derived_seeds_of_more_or_fewer_parts_differ():
    assert len({derive_seed(1), derive_seed(1, 0), derive_seed(1, 0, 0)}) == 3
    assert derive_seed(2**32) != derive_seed(0, 1)


def test_the_same_random_states_afterwards():
    def draw():
        return random.random(), np.random.rand(), float(np.random.randn()), float(torch.rand(()))

    seed_everything(3)
    np.random.randn()  # leaves a cached second number behind
    expected = draw()
    seed_everything(3)
    np.random.randn()
    with pytest.raises(ValueError, match="left"), same_random_states():
        seed_everything(4)
        draw()
        raise ValueError("left")
    assert draw() == expected


def trained_state(tiny, seed):
    accelerator = Accelerator(cpu=True)
    learner = tiny.build_learner("core_tuning", seed=seed)
    settings = tiny.options()
    state = TrainingState(learner, make_optimizer(learner.parameters(), settings), accelerator)
    images, labels = torch.rand(4, 3, 4, 4), torch.tensor([0, 1, 2, 0])
    terms = learner.objective(learner.image_encoder(images), labels, learner.classifier)
    terms.total.backward()
    state.optimizer.step()
    state.count(terms, labels)
    state.step, state.best_score, state.best_step, state.seconds = 5, 41.5, 2, 7.25
    return state


def test_training_state_round_trip(tiny, tmp_path):
    state = trained_state(tiny, seed=0)
    torch.save(state.state_dict(), tmp_path / "state")
    other = trained_state(tiny, seed=1)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for name, tensor in state.learner.state_dict().items():
        assert torch.equal(tensor, other.learner.state_dict()[name]), name
    buffers = [
        [entry["momentum_buffer"] for entry in s.optimizer.state_dict()["state"].values()]
        for s in (state, other)
    ]
    assert len(buffers[0]) == len(list(state.learner.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*buffers, strict=True))
    assert (other.step, other.best_score, other.best_step, other.seconds) == (5, 41.5, 2, 7.25)
    assert other.averages() == state.averages()


def terms_of(total, logits):
    return LossTerms(torch.tensor(total), torch.tensor(total), torch.tensor(0.0), logits)


def test_averages_weigh_micro_batches_by_their_images(tiny):
    state = TrainingState(tiny.build_learner(), None, Accelerator(cpu=True))
    state.count(terms_of(1.0, torch.eye(3)), torch.tensor([0, 1, 0]))
    state.count(terms_of(5.0, torch.eye(3)[:1]), torch.tensor([0]))
    assert state.averages() == {
        "loss": 2.0, "cross_entropy": 2.0, "contrastive": 0.0, "top1": 75.0,
    }  # fmt: skip
    state.count_anew()
    assert state.averages()["loss"] == 0
    assert (state.evaluations, state.recorded) == (1, state.step)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_bad_step_is_remembered(tiny, bad):
    state = TrainingState(tiny.build_learner(), None, Accelerator(cpu=True))
    for step, total in enumerate([1.0, 2.0, bad, 1.0, bad]):
        state.step = step
        state.count(terms_of(total, torch.eye(3)), torch.tensor([0, 1, 2]))
    assert state.what_is_not_finite() == "The loss is not finite at step 3"


def test_all_is_finite(tiny):
    state = trained_state(tiny, seed=0)
    assert state.what_is_not_finite(weights=True) == ""
    with torch.no_grad():
        state.learner.classifier.weight[0, 0] = math.nan
    assert state.what_is_not_finite() == ""
    assert state.what_is_not_finite(weights=True) == "The weights are not finite after step 5"


def test_optimisers(tiny):
    parameters = [torch.nn.Parameter(torch.ones(2))]
    common = {"lr": 0.3, "weight_decay": 0.01}
    sgd = make_optimizer(parameters, tiny.options(**common, momentum=0.8, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    group = sgd.param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (
        0.3, 0.8, True, 0.01,
    )  # fmt: skip
    # torch refuses Nesterov without momentum; without momentum the two are the same.
    plain = make_optimizer(parameters, tiny.options(**common, momentum=0.0, nesterov=True))
    assert not plain.param_groups[0]["nesterov"]
    adam = make_optimizer(parameters, tiny.options(**common, optimizer="adam"))
    assert isinstance(adam, torch.optim.Adam)
    assert adam.param_groups[0]["weight_decay"] == 0.01


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_devices_without_a_gpu():
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="'cuda', and torch finds no CUDA GPU: use --device cpu"):
        choose_device("cuda")
    with pytest.raises(UserError, match="'fp16' on a CPU, which needs a GPU: use bf16 or fp32"):
        make_accelerator("auto", "fp16")


@pytest.mark.parametrize("processes", ["2", "64"])
def test_several_processes_are_refused(monkeypatch, processes):
    monkeypatch.setenv("WORLD_SIZE", processes)
    with pytest.raises(UserError, match=f"WORLD_SIZE is {processes}, as under torchrun"):
        check_machine("cpu", "fp32")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert check_machine("cpu", "fp32").type == "cpu"


@pytest.mark.parametrize(("workers", "threads"), [(0, 4), (1, 3), (4, 1), (9, 1)])
def test_each_worker_is_left_a_core(monkeypatch, workers, threads):
    chosen = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.setattr("core_tuning.training.optimisation.available_cores", lambda: 4)
    share_cores(workers, 32)
    # Who says how many threads there are to be gets them.
    assert chosen == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    share_cores(workers, 224)
    assert chosen == []
    share_cores(workers, 32)
    assert chosen == [threads]


def test_progress_without_a_terminal_is_lines_alone(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("core_tuning.training.progress.time.monotonic", lambda: now[0])
    progress = Progress(10, 2, "label")
    for _ in range(4):
        progress.advance()
        now[0] += 30
    progress.say("all is well")
    progress.close()
    assert capsys.readouterr().err == "step 6 of 10: all is well; about 2.0 min left\n"


def test_progress_reads_once_a_second(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("core_tuning.training.progress.time.monotonic", lambda: now[0])
    bar = Progress(10, 2, "label")
    readings = []
    for _ in range(5):
        readings.append(bar.advance())
        now[0] += 0.4
    bar.show(loss=1.23456)
    bar.close()
    assert readings == [True, False, False, True, False]
    assert "7/10" in capsys.readouterr().err
