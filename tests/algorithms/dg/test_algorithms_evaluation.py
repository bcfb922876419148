"""Accuracies on every split, from memory and from files."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core_tuning.algorithms.algorithm import CETuning
from core_tuning.algorithms.environments import load_environments, split_environment
from core_tuning.algorithms.evaluation import Protocol, Store, measure
from core_tuning.data import build_transforms
from core_tuning.data.images import DecodedImages, ImageFiles

TARGET = 1


def accuracies(model, store, protocol, step):
    return measure(model, step, store=store, protocol=protocol).accuracies


class Linear(nn.Module):
    """Images (n, 3, 20, 20) to logits (n, 3), and what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 20 * 20, 3)
        self.dropout = nn.Dropout(0.9)
        self.seen = []

    def forward(self, images):
        self.seen.append(images.clone())
        # Without the colour, which would give an image's whole class one prediction.
        noise = images - images.mean((2, 3), keepdim=True)
        return self.dropout(self.layer(noise.flatten(1)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Linear()


@pytest.fixture
def environments(kit):
    # Resizing from 16 to 20 gives values that bytes alone cannot predict.
    return load_environments("toys", kit.data, 20)


@pytest.fixture
def make_store(environments):
    def make(memory=1.0, workers=0):
        return Store(environments, build_transforms("domainbed", 20), memory=memory,
                     workers=workers)  # fmt: skip

    return make


@pytest.fixture
def make_protocol(environments):
    def make(**options):
        splits = [
            split_environment(len(images), 0.3, 0, number)
            for number, images in enumerate(environments.images)
        ]
        sources = [number for number in range(len(splits)) if number != TARGET]
        return Protocol(splits, sources, 5, **options)

    return make


def test_against_a_plain_loop(model, environments, make_store, make_protocol):
    protocol = make_protocol()
    result = accuracies(model, make_store(), protocol, 0)
    evaluate = build_transforms("domainbed", 20).evaluate
    model.eval()
    expected = {}
    for number, images in enumerate(environments.images):
        for part, indices in zip(("in", "out"), protocol.splits[number], strict=True):
            right = 0
            for index in indices:
                logits = model(evaluate(images.image(index))[None])[0]
                right += int(logits.argmax()) == images.labels[index]
            expected[f"env{number}_{part}_acc"] = right / len(indices)
    assert result == pytest.approx(expected)
    assert result.keys() == expected.keys()
    assert len(set(expected.values())) > 3


@pytest.mark.parametrize("workers", [0, 2])
def test_memory_and_workers_change_no_bit(model, make_store, make_protocol, workers):
    """What the model sees is equal, and not its accuracy alone."""
    results, seen = [], []
    for memory, processes in [(1.0, 0), (0.0, workers)]:
        store = make_store(memory, processes)
        kind = DecodedImages if memory else ImageFiles
        assert all(isinstance(images, kind) for images in store.images)
        assert store.keeps_evaluated == bool(memory)
        model.seen = []
        # The second evaluation comes out of the cache, where there is one.
        results += [accuracies(model, store, make_protocol(), step) for step in (0, 1)]
        seen.append(torch.cat(model.seen))
    assert all(result == results[0] for result in results)
    assert torch.equal(seen[0], seen[1])
    assert (seen[0] * 255 - (seen[0] * 255).round()).abs().max() < 1e-4


def test_batches_larger_than_one(model, make_store, make_protocol, monkeypatch):
    whole = accuracies(model, make_store(), make_protocol(), 0)
    monkeypatch.setattr("core_tuning.algorithms.evaluation.BATCH", 7)
    for memory in (1.0, 0.0):
        model.seen = []
        assert accuracies(model, make_store(memory), make_protocol(), 0) == whole
        assert max(len(images) for images in model.seen) == 7


def test_augmented_validation_changes_the_sources_alone(model, make_store, make_protocol):
    def seen_of(protocol, step, memory=1.0):
        model.seen = []
        result = accuracies(model, make_store(memory), protocol, step)
        return result, model.seen

    plain, plain_seen = seen_of(make_protocol(), 0)
    augmented, first = seen_of(make_protocol(augmented=True), 0)
    again, second = seen_of(make_protocol(augmented=True), 0, memory=0.0)
    _, later = seen_of(make_protocol(augmented=True), 1)
    assert plain.keys() == augmented.keys()
    assert augmented == again
    for number in range(3):
        is_target = number == TARGET
        assert torch.equal(plain_seen[number], first[number]) == is_target
        assert torch.equal(first[number], second[number])
        assert torch.equal(first[number], later[number]) == is_target
    assert plain["env1_in_acc"] == augmented["env1_in_acc"]


def test_training_splits_can_be_left_out(model, make_store, make_protocol):
    whole = accuracies(model, make_store(), make_protocol(), 0)
    few = accuracies(model, make_store(), make_protocol(skip_sources_inside=True), 0)
    assert few == {name: whole[name] for name in whole if name not in ("env0_in_acc",
                                                                       "env2_in_acc")}  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_mode_and_random_numbers_are_left_as_they_were(model, make_store, make_protocol, training):
    model.train(training)
    state = torch.get_rng_state()
    for augmented in (False, True):
        accuracies(model, make_store(0.0), make_protocol(augmented=augmented), 0)
    assert model.training is model.dropout.training is training
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(images.requires_grad for images in model.seen)


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_batch_norm_stays_frozen(make_store, make_protocol, frozen):
    hparams = {"checkpoint": "embedded", "freeze_bn": frozen}
    algorithm = CETuning((3, 20, 20), 3, 2, hparams)
    norms = [m for m in algorithm.modules() if isinstance(m, nn.BatchNorm2d)]
    before = {name: value.clone() for name, value in algorithm.state_dict().items()}
    accuracies(algorithm, make_store(), make_protocol(), 0)
    assert algorithm.training and algorithm.featurizer.training
    assert all(norm.training is not frozen for norm in norms)
    after = algorithm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    algorithm.update([(torch.rand(8, 3, 20, 20), torch.arange(8) % 3)])
    moved = any(not torch.equal(before[name], after[name]) for name in before if "running" in name)
    assert moved is not frozen


def test_the_mean_of_the_sources_out_splits_selects(model, make_store, make_protocol):
    measured = measure(model, 0, store=make_store(), protocol=make_protocol())
    values = [measured.accuracies[f"env{number}_out_acc"] for number in (0, 2)]
    assert measured.score == measured.summary()["top1"] == pytest.approx(50 * sum(values))
