import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from core_tuning.data import (
    EpochSampler,
    SeededTransform,
    build_transforms,
    evaluation_batches,
    load_batches,
)
from core_tuning.data.images import DecodedImages, ImageFiles
from core_tuning.errors import UserError


@pytest.fixture
def images():
    pixels = np.random.default_rng(0).integers(0, 256, (23, 32, 32, 3), dtype=np.uint8)
    return DecodedImages(pixels, [i % 3 for i in range(23)], ["a", "b", "c"])


def _load(images, batches, workers=0):
    dataset = SeededTransform(images, build_transforms("small", 16).train)
    loader = DataLoader(dataset, batch_sampler=list(batches), num_workers=workers)
    return list(load_batches(loader))


def _equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b) and torch.equal(x, y)
        for (a, x), (b, y) in zip(first, second, strict=True)
    )


def test_workers_do_not_change_a_bit(images):
    sampler = EpochSampler(len(images), 4, seed=5)
    alone = _load(images, sampler.batches(2))
    assert len(alone) == 5
    assert _equal(alone, _load(images, sampler.batches(2), workers=2))


def test_resuming_gives_the_same_batches(images):
    sampler = EpochSampler(len(images), 4, seed=5)
    assert _equal(_load(images, sampler.batches(1))[3:], _load(images, sampler.batches(1, 3)))


def test_an_augmentation_depends_on_its_seed_only(images):
    dataset = SeededTransform(images, build_transforms("small", 16).train)
    first, _ = dataset[3, 7]
    torch.rand(5)
    assert torch.equal(dataset[3, 7][0], first)
    assert not torch.equal(dataset[3, 8][0], first)


@pytest.mark.parametrize("recipe", ["imagenet", "cifar", "small"])
def test_other_generators_are_left_alone(images, recipe):
    """The transforms draw from torch's generator only, and its state is restored."""
    dataset = SeededTransform(images, build_transforms(recipe, 16).train)
    states = (torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    dataset[0, 1]
    assert torch.equal(torch.random.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]


def test_evaluation_is_in_order_and_complete(images):
    keys = [key for batch in evaluation_batches(len(images), 10) for key in batch]
    assert keys == [(i, None) for i in range(23)]
    dataset = SeededTransform(images, build_transforms("small", 16).evaluate)
    assert torch.equal(dataset[4, None][0], dataset[4, None][0])
    assert len(dataset) == 23


def test_an_epoch_has_every_image_once():
    sampler = EpochSampler(24, 4, seed=0)
    batches = list(sampler.batches(0))
    assert [len(batch) for batch in batches] == [4] * len(sampler) == [4] * 6
    assert sorted(index for batch in batches for index, _ in batch) == list(range(24))


def test_a_smaller_last_batch_is_left_out():
    sampler = EpochSampler(23, 4, seed=0)
    batches = list(sampler.batches(0))
    assert [len(batch) for batch in batches] == [4] * len(sampler) == [4] * 5


def test_neighbouring_seeds_and_epochs_share_nothing():
    streams = [
        list(EpochSampler(100, 100, seed).batches(epoch)) for seed in range(3) for epoch in range(3)
    ]
    orders = {tuple(index for index, _ in batches[0]) for batches in streams}
    seeds = {seed for batches in streams for _, seed in batches[0]}
    assert (len(orders), len(seeds)) == (9, 900)


def test_fewer_images_than_a_batch():
    with pytest.raises(
        UserError, match="has 3 images, fewer than a batch of 8: give --batch-size 3"
    ):
        EpochSampler(3, 8, seed=0)


def test_arguments_out_of_range():
    with pytest.raises(UserError, match="--batch-size is 0: expected at least 1"):
        EpochSampler(3, 0, seed=0)
    with pytest.raises(UserError, match="--seed is -1: expected at least 0"):
        next(EpochSampler(3, 1, seed=-1).batches(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_stays_one_sentence(tmp_path, workers):
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = ImageFiles([tmp_path / "broken.png"], [0], ["a", "b"])
    with pytest.raises(UserError) as raised:
        _load(images, evaluation_batches(1, 1), workers)
    assert str(raised.value).startswith("The image ")
    assert "Traceback" not in str(raised.value)
