"""Table 10: whether a data set has the sizes that the paper prints."""

from __future__ import annotations

import csv
from importlib import resources
from typing import NamedTuple

from .splits import Source

# Why a set's official split does not have the paper's number.
EXPLANATIONS = {
    ("pets", "test"): "the official test split has 3,669 images, so the paper's is a misprint",
    ("flowers", "train"): "the paper uses Kaggle's split, which is 'flowers_kaggle'",
    ("flowers", "test"): "the paper uses Kaggle's split, which is 'flowers_kaggle'",
}


class Sizes(NamedTuple):
    classes: int
    train: int
    test: int


def paper_sizes() -> dict[str, Sizes]:
    """Return Table 10: the name of a data set to its number of classes and of images."""
    table = resources.files("core_tuning") / "paper_tables" / "table10_datasets.csv"
    rows = csv.DictReader(table.read_text().splitlines())
    return {
        row["dataset"]: Sizes(int(row["classes"]), int(row["train"]), int(row["test"]))
        for row in rows
    }


def size_warnings(name: str, source: Source) -> list[str]:
    """Return a sentence for each number that differs from Table 10's.

    A set that Table 10 does not have, such as a user's folder, is not checked.
    """
    sizes = paper_sizes().get("flowers" if name == "flowers_kaggle" else name)
    if sizes is None:
        return []
    found = Sizes(len(source.train.classes), len(source.train), len(source.test))
    warnings = []
    for part, expected, count in zip(Sizes._fields, sizes, found, strict=True):
        if count != expected:
            what = "classes" if part == "classes" else f"images in the {part} split"
            reason = EXPLANATIONS.get((name, part))
            warnings.append(
                f"{name} ({source.split}) has {count:,} {what} where Table 10 of the paper prints "
                f"{expected:,}{f': {reason}' if reason else ''}."
            )
    return warnings
