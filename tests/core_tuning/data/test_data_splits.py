from collections import Counter

import pytest

from core_tuning.data.images import ImageFiles
from core_tuning.data.splits import (
    Source,
    carve_and_sample,
    split_per_class,
    stratified_sample,
    stratified_split,
)
from core_tuning.errors import UserError

LABELS = [0] * 50 + [1] * 30 + [2] * 20


def _source(labels=LABELS, validation=None):
    images = ImageFiles([f"{i}.png" for i in range(len(labels))], labels, ["a", "b", "c"])
    return Source(images, images.subset([0]), "all", validation)


def test_split_is_stratified_disjoint_and_complete():
    rest, chosen = stratified_split(LABELS, 0.1, seed=3)
    assert sorted(rest + chosen) == list(range(100))
    assert Counter(LABELS[i] for i in chosen) == {0: 5, 1: 3, 2: 2}


def test_split_depends_on_the_seed_only():
    assert stratified_split(LABELS, 0.1, seed=3) == stratified_split(LABELS, 0.1, seed=3)
    assert stratified_split(LABELS, 0.1, seed=3) != stratified_split(LABELS, 0.1, seed=4)


def test_small_classes_still_give_the_whole_share():
    labels = [label for label in range(10) for _ in range(3)]
    rest, chosen = stratified_split(labels, 0.1, seed=0)
    assert len(chosen) == 3
    assert set(Counter(labels[i] for i in rest)) == set(range(10))


def test_a_split_of_single_images_is_refused():
    with pytest.raises(UserError, match=r"No class has two images.*--validation 0\."):
        stratified_split([0, 1, 2], 0.1, seed=0)


def test_sample_keeps_one_of_each_class_and_grows():
    tenth = stratified_sample(LABELS, 0.1, seed=0)
    quarter = stratified_sample(LABELS, 0.25, seed=0)
    assert Counter(LABELS[i] for i in tenth) == {0: 5, 1: 3, 2: 2}
    assert set(tenth) < set(quarter)
    assert len(stratified_sample(LABELS, 0.001, seed=0)) == 3


def test_split_per_class():
    train, test = split_per_class(LABELS, 15, seed=0)
    assert Counter(LABELS[i] for i in train) == {0: 15, 1: 15, 2: 15}
    assert sorted(train + test) == list(range(100))


def test_carving_then_sampling_shrinks_both_parts():
    whole, _ = carve_and_sample(_source(), fraction=1.0, validation=0.2, seed=1)
    train, validation = carve_and_sample(_source(), fraction=0.5, validation=0.2, seed=1)
    assert (len(whole), len(train), len(validation)) == (80, 40, 10)
    assert set(train.paths) < set(whole.paths)
    assert not set(validation.paths) & set(whole.paths)


def test_no_validation():
    train, validation = carve_and_sample(_source(), fraction=1.0, validation=0, seed=0)
    assert (len(train), len(validation)) == (100, 0)


def test_own_validation_set_is_kept():
    own = ImageFiles(["own.png"], [0], ["a", "b", "c"])
    train, validation = carve_and_sample(
        _source(validation=own), fraction=1.0, validation=0.5, seed=0
    )
    assert (len(train), validation.paths) == (100, ["own.png"])


@pytest.mark.parametrize(
    ("fraction", "validation", "seed", "message"),
    [
        (0.0, 0.1, 0, r"--fraction is 0\.0: expected above 0"),
        (1.5, 0.1, 0, r"--fraction is 1\.5: .*at most 1"),
        (1.0, 1.0, 0, r"--validation is 1\.0: .*below 1"),
        (1.0, -0.1, 0, r"--validation is -0\.1: expected at least 0"),
        (1.0, 0.1, -1, "--seed is -1: expected at least 0"),
    ],
)
def test_arguments_out_of_range(fraction, validation, seed, message):
    with pytest.raises(UserError, match=message):
        carve_and_sample(_source(), fraction=fraction, validation=validation, seed=seed)
