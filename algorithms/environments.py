"""The environments (domains) of a data set, and DomainBed's splits of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core_tuning.data import Skipped, fingerprint, load_domains, scan_headers
from core_tuning.data.embedded import emoji_domains_folder
from core_tuning.data.images import LabelledImages
from core_tuning.errors import UserError

from .names import DATASETS, EMOJI, Layout, nearest, seed_hash

EMOJI_SIZE = 32


class Environments(NamedTuple):
    """A data set's environments, in DomainBed's order.

    Attributes:
        names: of the environments.
        images: of each environment.
        classes: names of the classes, the same in all environments.
        image_size: side in pixels of the images that the network sees.
        evaluate_every: default steps between evaluations.
        fingerprint: of the images.
        warnings: what of the data set's folder is skipped, a sentence each.
        folder: of the domains, inside the data folder; "emoji_domains" is embedded.
        turn: whether images are turned by their EXIF orientation.
    """

    names: list[str]
    images: list[LabelledImages]
    classes: list[str]
    image_size: int
    evaluate_every: int
    fingerprint: dict[str, Any]
    warnings: list[str]
    folder: str
    turn: bool


def load_environments(
    dataset: str, data_dir: Path | None, image_size: int | None = None, *, scan: bool = False
) -> Environments:
    """Read a data set of DomainBed's by its name, or any folder `domain/class/*`.

    DomainBed's own are read as it reads them, which does not heed the orientation that a camera
    notes in an image's EXIF data; the images of other folders are turned by it.

    Args:
        dataset: a key of `DATASETS`, or the name of a folder in `data_dir`.
        data_dir: what DomainBed calls so; not needed for EmojiDomains, which is embedded.
        image_size: 32 pixels for EmojiDomains and 224 for the others by default.
        scan: look at the header of every image, but for EmojiDomains.

    Raises:
        UserError: the data set is not there, its environments differ in their classes, or it has
            files that are no images.
    """
    default_size = 224
    layout = DATASETS.get(dataset)
    if dataset == EMOJI:
        root = emoji_domains_folder()
        default_size = EMOJI_SIZE
    else:
        if data_dir is None:
            raise UserError(_missing(dataset, layout))
        root = data_dir / (layout.folder if layout else dataset)
        if not root.exists() and data_dir.name == root.name and data_dir.is_dir():
            raise UserError(
                f"--data_dir is {data_dir}, the folder of {dataset} itself: give its parent, "
                f"{data_dir.resolve().parent}."
            )
        if layout is None and not root.exists():
            raise UserError(
                f"'{dataset}' is none of {', '.join(DATASETS)}, and there is no folder "
                f"{root}{_hint(dataset)}"
            )
    skipped = Skipped(root)
    domains = load_domains(root, skipped=skipped, turn=layout is None)
    found = fingerprint(domains)
    if scan and dataset != EMOJI:
        paths = [path for images in domains.values() for path in images.paths]
        scan_headers(paths, found["sha256"])
    first = next(iter(domains.values()))
    return Environments(
        list(domains),
        list(domains.values()),
        first.classes,
        image_size or default_size,
        layout.evaluate_every if layout else 300,
        found,
        skipped.sentences(),
        layout.folder if layout else dataset,
        layout is None,
    )


def _missing(dataset: str, layout: Layout | None) -> str:
    if layout is None:
        return (
            f"'{dataset}' is none of {', '.join(DATASETS)}, and --data_dir, where a folder of that "
            f"name could be, is missing{_hint(dataset)}"
        )
    return (
        f"--data_dir is missing for {dataset}: name the folder that holds {layout.folder}/, with "
        "domain/class/* in it."
    )


def _hint(dataset: str) -> str:
    close = nearest(dataset, DATASETS)
    return f"; did you mean '{close}'?" if close else "."


class Split(NamedTuple):
    """Indices of an environment's images: `inside` is trained on unless the environment is a
    target, `outside` validates."""

    inside: list[int]
    outside: list[int]


def split_environment(count: int, holdout_fraction: float, trial_seed: int, number: int) -> Split:
    """Divide `count` images of environment `number` as DomainBed's train.py does."""
    keys = list(range(count))
    np.random.RandomState(seed_hash(trial_seed, number)).shuffle(keys)
    held_out = int(count * holdout_fraction)
    return Split(keys[held_out:], keys[:held_out])


def check_targets(test_envs: list[int], environments: Environments) -> None:
    """Raise a UserError unless the targets exist and leave something to train on."""
    names = ", ".join(f"{i} {name}" for i, name in enumerate(environments.names))
    for target in test_envs:
        if not 0 <= target < len(environments.names):
            raise UserError(f"--test_envs is {target}: expected one of {names}.")
    if len(set(test_envs)) < len(test_envs):
        raise UserError(f"--test_envs names {test_envs}, one twice: name each once.")
    if len(test_envs) >= len(environments.names):
        raise UserError(f"--test_envs names all of {names}: leave one or more to train on.")


def check_splits(
    environments: Environments, test_envs: Sequence[int], holdout_fraction: float, batch_size: int
) -> None:
    """Raise a UserError where a split is empty, or a batch is larger than one to train on.

    DomainBed stops with a traceback on the first, and waits for ever on the second.
    """
    for number, (name, images) in enumerate(
        zip(environments.names, environments.images, strict=True)
    ):
        outside = int(len(images) * holdout_fraction)
        inside = len(images) - outside
        if not outside or not inside:
            raise UserError(
                f"--holdout_fraction is {holdout_fraction}, which divides the {len(images)} images "
                f"of domain {name} into {inside} and {outside}: expected at least one in each "
                "split; give another fraction, or add images."
            )
        if number not in test_envs and inside < batch_size:
            raise UserError(
                f"The training split of domain {name} has {inside} images, "
                f"fewer than a batch of {batch_size}: lower the hyper-parameter batch_size, "
                f"""--hparams '{{"batch_size": {inside}}}'."""
            )
