"""Which images a step draws from each source domain."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import chisquare

from core_tuning.algorithms.dg_run import DomainBatches

LABELS = [[0, 0, 0, 1, 1, 2], [0, 1, 2, 2], [2, 2, 2, 2, 2, 2, 2, 0, 1]]
# Indices of the domains run on from one to the next.
RANGES = [range(0, 6), range(6, 10), range(10, 19)]
ALL_LABELS = [label for part in LABELS for label in part]


def batches(**options):
    return DomainBatches(LABELS, **{"batch_size": 5, "seed": 3, "steps": 40, **options})


def counts_of(sampler, domain):
    size = sampler.batch_size
    part = slice(domain * size, (domain + 1) * size)
    return Counter(index for batch in sampler for index, _ in batch[part])


@pytest.mark.parametrize("class_balanced", [False, True])
@pytest.mark.parametrize("start", [0, 1, 17, 39, 40])
def test_any_step_can_be_gone_on_from(start, class_balanced):
    whole = list(batches(class_balanced=class_balanced))
    rest = batches(start=start, class_balanced=class_balanced)
    assert len(rest) == 40 - start
    assert list(rest) == whole[start:]
    assert rest.batch(5) == whole[5]


def test_more_steps_change_nothing_before():
    assert list(batches(steps=60))[:40] == list(batches())


def test_domains_follow_one_another_in_their_order():
    for batch in batches():
        assert len(batch) == 15
        for number, allowed in enumerate(RANGES):
            assert all(index in allowed for index, _ in batch[5 * number : 5 * number + 5])


def test_images_are_drawn_with_replacement():
    # Five of four images cannot all differ, and a batch may even exceed the domain.
    assert any(len({index for index, _ in batch[5:10]}) < 4 for batch in batches())
    assert len(batches(batch_size=30).batch(0)) == 90


def test_steps_seeds_and_augmentations_differ():
    first, second = batches(), batches(seed=4)
    drawn = [tuple(batch) for batch in (*first, *second)]
    assert len(set(drawn)) == len(drawn)
    seeds = [seed for batch in first for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_images_are_drawn_uniformly(domain):
    counts = counts_of(batches(steps=800), domain)
    assert chisquare([counts[index] for index in RANGES[domain]]).pvalue > 0.001


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_class_balanced_draws_classes_alike(domain):
    counts = counts_of(batches(steps=800, class_balanced=True), domain)
    of_class = Counter()
    for index, count in counts.items():
        of_class[ALL_LABELS[index]] += count
    assert chisquare(list(of_class.values())).pvalue > 0.001
    # And the images of a class alike.
    members = [counts[index] for index in RANGES[domain] if ALL_LABELS[index] == 2]
    assert chisquare(members).pvalue > 0.001 if len(members) > 1 else members[0] > 0


def test_a_class_that_a_domain_lacks_takes_no_weight():
    sampler = DomainBatches([[0, 0, 2]], 300, 0, steps=1, class_balanced=True)
    of_class = Counter([0, 0, 2][index] for index, _ in sampler.batch(0))
    assert chisquare([of_class[0], of_class[2]]).pvalue > 0.001
