"""Training, validation and test sets, and the seeded choices that make them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_range
from ..errors import UserError
from .images import LabelledImages

# Each kind of choice has a stream of its own, so that one seed does not repeat itself.
_CARVE, _SAMPLE_TRAIN, _SAMPLE_VALIDATION, _PER_CLASS = range(4)


@dataclass(frozen=True)
class Splits:
    """A data set ready for fine-tuning; the data sets give (PIL RGB image, label).

    Attributes:
        name: name of the data set.
        classes: name of each class, in the order of the labels.
        train: what is fine-tuned on.
        validation: what models are selected on; empty when nothing was carved out.
        test: what is reported; it selects nothing.
        split: which split of the set this is, to be written into the results.
        warnings: where the set differs from the paper's, and what of a folder is skipped, a
            sentence each.
        fingerprint: of the images as they lie on disk; see `fingerprint`.
    """

    name: str
    classes: list[str]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    split: str
    warnings: list[str] = field(default_factory=list)
    fingerprint: dict[str, Any] = field(default_factory=dict)


class Source(NamedTuple):
    """A data set as it lies on disk, before anything is carved out or sampled."""

    train: LabelledImages
    test: LabelledImages
    split: str
    validation: LabelledImages | None = None
    warnings: tuple[str, ...] = ()

    def parts(self) -> dict[str, LabelledImages]:
        """Return its images by what they are for."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}


def seeded_generator(seed: int, *path: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the path below it only.

    `SeedSequence` mixes the numbers, so that neighbouring seeds or epochs share nothing.

    Raises:
        UserError: the seed is negative.
    """
    check_range("seed", seed, "--seed")
    return np.random.default_rng(np.random.SeedSequence((seed, *path)))


def _positions(strata: Sequence[Hashable], generator_path: tuple[int, ...]) -> list[list[int]]:
    """Return the shuffled indices of each stratum, in the order of first appearance."""
    grouped: dict[Hashable, list[int]] = defaultdict(list)
    for index, stratum in enumerate(strata):
        grouped[stratum].append(index)
    generator = seeded_generator(*generator_path)
    return [generator.permutation(indices).tolist() for indices in grouped.values()]


def _shares(sizes: list[int], share: float) -> list[int]:
    """Divide round(share * total) among strata by largest remainder; each keeps at least one."""
    total = max(1, round(share * sum(sizes)))
    counts = [min(int(share * size), size - 1) for size in sizes]
    order = sorted(range(len(sizes)), key=lambda i: int(share * sizes[i]) - share * sizes[i])
    for stratum in order:
        if sum(counts) < total and counts[stratum] < sizes[stratum] - 1:
            counts[stratum] += 1
    return counts


def stratified_split(
    strata: Sequence[Hashable], share: float, seed: int
) -> tuple[list[int], list[int]]:
    """Divide indices into (rest, chosen), with about the same share chosen of each stratum.

    Args:
        strata: the stratum of each index, a label for example.
        share: share in (0, 1) to choose; at least one image is, and every stratum keeps one.
        seed: what the choice depends on.

    Raises:
        UserError: no stratum has two images, so that nothing can be chosen.
    """
    groups = _positions(strata, (seed, _CARVE))
    counts = _shares([len(group) for group in groups], share)
    if not any(counts):
        raise UserError(
            f"No class has two images, so that a share of {share} cannot be carved out of "
            f"{len(strata)} images: add images or give --validation 0."
        )
    chosen = sorted(i for group, n in zip(groups, counts, strict=True) for i in group[:n])
    rest = sorted(i for group, n in zip(groups, counts, strict=True) for i in group[n:])
    return rest, chosen


def stratified_sample(
    strata: Sequence[Hashable], fraction: float, seed: int, stream: int = _SAMPLE_TRAIN
) -> list[int]:
    """Choose a fraction of the indices of each stratum, at least one (the sampling of Table 5).

    The choice of a smaller fraction is a part of a larger one's at the same seed.
    """
    groups = _positions(strata, (seed, stream))
    return sorted(i for group in groups for i in group[: max(1, round(fraction * len(group)))])


def split_per_class(labels: Sequence[int], count: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide indices into (`count` of each class, the rest): Caltech-101's protocol."""
    groups = _positions(labels, (seed, _PER_CLASS))
    return (
        sorted(i for group in groups for i in group[:count]),
        sorted(i for group in groups for i in group[count:]),
    )


def carve_and_sample(
    source: Source, *, fraction: float, validation: float, seed: int
) -> tuple[LabelledImages, LabelledImages]:
    """Make the training and the validation set out of a source's training images.

    The validation images are carved out first and the fraction is sampled of both afterwards:
    whoever has a tenth of the labels has a tenth of them to select models on, too. A source with
    a validation set of its own keeps it, and nothing is carved out of the training images.

    Raises:
        UserError: `fraction` is not in (0, 1], or `validation` not in [0, 1).
    """
    check_range("fraction", fraction, "--fraction")
    check_range("validation", validation, "--validation")
    train, held_out = source.train, source.validation
    if held_out is None:
        rest, chosen = list(range(len(train))), list[int]()
        if validation > 0:
            rest, chosen = stratified_split(train.labels, validation, seed)
        train, held_out = train.subset(rest), train.subset(chosen)
    if fraction < 1:
        train, held_out = (
            part.subset(stratified_sample(part.labels, fraction, seed, stream))
            for part, stream in ((train, _SAMPLE_TRAIN), (held_out, _SAMPLE_VALIDATION))
        )
    return train, held_out
