"""What an evaluation measures on what, checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from core_tuning.data import Splits, build_transforms, describe_change, load_splits
from core_tuning.errors import UserError

from .budgets import beyond_usual, check_reach, describe_eps
from .config import RobustEvaluate
from .measure import as_float
from .own_module import own_code
from .pixels import Pixels, ResizedInside, choose_images, describe_sizes, read_pixels
from .protocols import Protocol, choose_protocol
from .report import Images
from .subject import PROBED, Made, Randomness, Subject, inspect_answers, load_subject

# Smallest side in pixels that Square's pattern for L2 can be laid on.
SMALLEST_SIDE = 5

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Setup:
    """What is evaluated on what; `model` takes what is attacked, `subject.model` its own input."""

    options: RobustEvaluate
    subject: Subject
    splits: Splits
    transform: Transform
    pixels: Pixels
    data: Images
    model: nn.Module
    randomness: Randomness


def prepare(options: RobustEvaluate, device: torch.device) -> Setup:
    """Load model and images, and check that they fit each other and the attacks."""
    subject = load_subject(options)
    with own_code(f"Moving {subject.facts['source']} to {device}", "name another --device"):
        subject.model.to(device)
    splits = load_splits(
        subject.dataset,
        subject.data_dir,
        download=options.download,
        fraction=subject.made.fraction,
        validation=subject.made.validation,
        seed=options.seed if subject.made.seed is None else subject.made.seed,
    )
    if subject.classes is not None and splits.classes != subject.classes:
        raise UserError(
            f"The classes of {subject.dataset} ({', '.join(splits.classes[:3])}, ...) are not the "
            f"model's ({', '.join(subject.classes[:3])}, ...): evaluate it on a data set with the "
            "same class names."
        )
    images = splits.test if options.split == "test" else splits.validation
    if not len(images):
        raise UserError(
            f"The {options.split} split of {subject.dataset} is empty: name another --split."
        )
    indices = choose_images(len(images), options.wanted(len(images)), options.seed)
    transform = build_transforms(subject.recipe, subject.image_size).evaluate
    pixels = read_pixels(images, indices, transform, options.attack_space, workers=options.workers)
    model = subject.model
    if options.attack_space == "native":
        model = ResizedInside(model, transform).eval()
    probed = max((group.images[:PROBED] for group in pixels.attacked), key=len)
    randomness = inspect_answers(model, as_float(probed.to(device)), len(splits.classes))
    data = Images(
        dataset=subject.dataset,
        split=options.split,
        description=splits.split,
        classes=splits.classes,
        n=len(indices),
        total=len(images),
        seed=options.seed,
        warnings=[*splits.warnings, *_warnings(options, subject, splits)],
        attack_space=options.attack_space,
        input_size=describe_sizes([(subject.image_size, subject.image_size)]),
        native_size=describe_sizes(pixels.sizes),
        indices=indices,
    )
    return Setup(options, subject, splits, transform, pixels, data, model, randomness)


def _warnings(options: RobustEvaluate, subject: Subject, splits: Splits) -> Iterator[str]:
    before = subject.made.data
    change = None if before is None else describe_change(before, splits.fingerprint)
    if change is not None:
        yield f"The images are not those of the run: {change}."
    if options.split == "validation" and subject.made != Made():
        yield (
            f"The run's model may have been selected on these images (selection: "
            f"{subject.facts['selection']}): its figures on them are too good."
        )
    elif options.split == "validation":
        yield (
            "The validation images may be carved out of the training images: the model may have "
            "been trained on them."
        )


class Job(NamedTuple):
    """A row that is asked for, and what is to be said of it."""

    protocol: Protocol
    norm: str
    eps: float
    notes: list[str]

    def __str__(self) -> str:
        return f"{self.protocol.name} {self.norm} {describe_eps(self.norm, self.eps)}"


def plan_rows(setup: Setup) -> list[Job]:
    """The rows that are asked for, in order; what is to be said of them is printed.

    Raises:
        UserError: the images are too small for an attack, or for an eps.
    """
    options, is_randomised = setup.options, setup.randomness.is_randomised
    sizes = [(images.shape[-2], images.shape[-1]) for images, _, _ in setup.pixels.attacked]
    smallest, is_oblong = min(sizes, key=math.prod), any(height != width for height, width in sizes)
    squared = {"square", "autoattack"} & set(options.attacks)
    if squared and min(map(min, sizes)) < SMALLEST_SIDE:
        raise UserError(
            f"Images of {describe_sizes(sizes)} pixels are too small for Square, which needs "
            f"{SMALLEST_SIDE}: leave {' and '.join(sorted(squared))} out of --attacks."
        )
    jobs = []
    for norm, eps in options.budgets():
        check_reach(norm, eps, 3 * math.prod(smallest))
        large = beyond_usual(norm, eps, smallest)
        for name in options.attacks:
            protocol = choose_protocol(
                name,
                len(setup.splits.classes),
                queries=options.square_queries,
                is_randomised=is_randomised,
            )
            notes = [protocol.note] if protocol.note else []
            if is_oblong and "square" in {stage.name for stage in protocol.stages}:
                notes.append("Square was made for square images; some here are not.")
            if large:
                notes.append(
                    f"{large}: such a change can be seen, and may change what the image shows."
                )
            jobs.append(Job(protocol, norm, eps, notes))
    said = [setup.randomness.sentence()] if is_randomised else []
    for note in dict.fromkeys([*said, *(note for job in jobs for note in job.notes)]):
        print(f"note: {note}")
    return jobs
