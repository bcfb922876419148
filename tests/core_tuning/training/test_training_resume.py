"""A run that is stopped anywhere and resumed equals an uninterrupted one, bit for bit.

Here the moments are chosen, all of them; tests/interruption kills processes at random.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from core_tuning.training import loop, recorder
from core_tuning.training.folder import RunFolder
from core_tuning.training.recorder import RunRecorder

# 26 images in batches of 6: 4 steps an epoch, 12 in all, 2 images left over each time.
STEPS_AN_EPOCH = 4


class Killed(BaseException):
    """Not an Exception, so that nothing in between handles it."""


def kill_at_call(monkeypatch, owner, name, number, *, after):
    """Raise Killed at a function's call of a number (from 1), before or after its work."""
    original, calls = getattr(owner, name), [0]

    def killing(*args, **kwargs):
        calls[0] += 1
        if calls[0] == number and not after:
            raise Killed
        result = original(*args, **kwargs)
        if calls[0] == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, killing)


def assert_equal_trees(first, second, where=""):
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_equal_trees(first[key], second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (a, b) in enumerate(zip(first, second, strict=True)):
            assert_equal_trees(a, b, f"{where}/{index}")
    else:
        assert first == second, where


def assert_same_run(first: RunFolder, second: RunFolder):
    def metrics(folder):
        return [
            {key: value for key, value in line.items() if key not in ("seconds", "step_time")}
            for line in folder.read_metrics()
        ]

    assert metrics(first) == metrics(second)
    assert_equal_trees(load_file(first.model_path), load_file(second.model_path), "model")
    checkpoints = [folder.load_checkpoint() for folder in (first, second)]
    for checkpoint in checkpoints:
        del checkpoint["seconds"]
        del checkpoint["step_seconds"]
    assert_equal_trees(*checkpoints, "checkpoint")


def interrupt_and_resume(tiny, path, monkeypatch, method, kill, **settings):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill(patch)
        tiny.train(path, tiny.build_learner(method), checkpoint_minutes=0, **settings)
    # Other initial weights: what the checkpoint lacks would show.
    torch.manual_seed(1234)
    learner = tiny.build_learner(method, seed=0)
    return tiny.train(path, learner, checkpoint_minutes=0, **settings).folder


@pytest.mark.parametrize("method", ["ce", "core_tuning"])
@pytest.mark.parametrize("save", range(1, 16))
def test_killed_after_any_save(tiny, tmp_path, monkeypatch, method, save):
    """Saves 1 to 4 follow steps 1 to 4, the fifth ends the epoch, and so on.

    The fourth one of an epoch is the moment between its last step and its evaluation.
    """
    whole = tiny.train(tmp_path / "whole", tiny.build_learner(method), checkpoint_minutes=0)

    def kill(patch):
        kill_at_call(patch, RunFolder, "save_checkpoint", save, after=True)

    resumed = interrupt_and_resume(tiny, tmp_path / "cut", monkeypatch, method, kill)
    assert_same_run(whole.folder, resumed)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("moment", ["keep_model", "record", "save"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_while_an_epoch_ends(tiny, tmp_path, monkeypatch, moment, epoch, after):
    """Without checkpoints inside of epochs, but before and after their evaluations."""
    whole = tiny.train(tmp_path / "whole", validate=None)

    def kill(patch):
        kill_at_call(patch, RunRecorder, moment, epoch, after=after)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill(patch)
        tiny.train(tmp_path / "cut", validate=None)
    resumed = tiny.train(tmp_path / "cut", validate=None)
    assert_same_run(whole.folder, resumed.folder)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_killed_between_metrics_and_save(tiny, tmp_path, monkeypatch, epoch):
    """The epoch's line is written and its last step is saved, but not that the epoch is over."""
    whole = tiny.train(tmp_path / "whole", tiny.build_learner("ce"), checkpoint_minutes=0)

    def kill(patch):
        kill_at_call(patch, recorder, "append_line", epoch, after=True)

    resumed = interrupt_and_resume(tiny, tmp_path / "cut", monkeypatch, "ce", kill)
    assert_same_run(whole.folder, resumed)


def test_killed_again_and_again(tiny, tmp_path, monkeypatch):
    """Every process is stopped at its second step; the run comes to its end nonetheless."""
    whole = tiny.train(tmp_path / "whole", tiny.build_learner("core_tuning"), checkpoint_minutes=0)
    kills = 0
    for _ in range(3 * STEPS_AN_EPOCH):
        with monkeypatch.context() as patch:
            kill_at_call(patch, loop._Run, "step", 2, after=False)
            try:
                learner = tiny.build_learner("core_tuning")
                tiny.train(tmp_path / "cut", learner, checkpoint_minutes=0)
            except Killed:
                kills += 1
            else:
                break
    assert kills >= STEPS_AN_EPOCH
    assert_same_run(whole.folder, RunFolder(tmp_path / "cut"))


@pytest.mark.parametrize("save", [2, 7])
def test_layers_that_draw_from_the_global_generator(tiny, tmp_path, monkeypatch, save):
    """Dropout's masks go on where they were, whatever the loaders draw in between."""
    settings = {"checkpoint_minutes": 0}
    torch.manual_seed(0)
    whole = tiny.train(tmp_path / "whole", tiny.build_learner(dropout=0.5), **settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_call(patch, RunFolder, "save_checkpoint", save, after=True)
        tiny.train(tmp_path / "cut", tiny.build_learner(dropout=0.5), **settings)
    resumed = tiny.train(tmp_path / "cut", tiny.build_learner(dropout=0.5), **settings)
    assert_same_run(whole.folder, resumed.folder)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_workers_change_nothing(tiny, tmp_path, dropout):
    """`--workers` may differ on --resume, so it must not matter in one go either."""
    folders = [
        tiny.train(
            tmp_path / str(workers), tiny.build_learner(dropout=dropout), epochs=2, workers=workers
        ).folder
        for workers in (0, 1)
    ]
    assert_same_run(*folders)


def test_a_finished_run_takes_no_further_step(tiny, tmp_path, monkeypatch):
    finished = tiny.train(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.setattr(loop._Run, "step", None)
    again = tiny.train(tmp_path)
    assert again.state.step == finished.state.step == 3 * STEPS_AN_EPOCH
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_a_cut_metrics_line_is_written_again(tiny, tmp_path, monkeypatch):
    """A kill in the middle of appending a line."""
    whole = tiny.train(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at_call(patch, recorder, "append_line", 2, after=True)
        tiny.train(tmp_path / "cut")
    metrics = tmp_path / "cut" / "metrics.jsonl"
    metrics.write_text(metrics.read_text()[:-20])
    resumed = tiny.train(tmp_path / "cut")
    assert_same_run(whole.folder, resumed.folder)
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == [1, 2, 3]
