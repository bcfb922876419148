"""`core-tuning robust evaluate`: clean and robust accuracy of a model, and signs of masking."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.errors import UserError

from .evaluate_options import DEFAULT_N, HARMLESS, parse

# What an evaluation writes.
FILES = (
    "rows.jsonl",
    ".row.json",
    "masking.jsonl",
    "report.json",
    "report.md",
    "report.html",
    "figures/*.png",
)
# The masking checks cost about as much as a row each: so many images show what they look for.
MASKING_IMAGES = 200
EXAMPLES = 6
# Smallest side in pixels that Square's pattern for L2 can be laid on.
SMALLEST_SIDE = 5


def main(argv: list[str]) -> int:
    """Run the command."""
    options = parse(argv)
    is_folder = options.model is not None and options.model.is_dir()
    seeds = sorted(options.model.glob("seed-*")) if is_folder else []
    if seeds and options.output is not None:
        raise UserError(f"{options.model} holds several runs: evaluate one of them with --output.")
    for model in seeds or [options.model]:
        _evaluate(argparse.Namespace(**{**vars(options), "model": model}))
    return 0


class _Evaluation(NamedTuple):
    """What is evaluated, on what, and where it goes."""

    options: argparse.Namespace
    subject: Any  # Subject
    model: Any  # nn.Module on the device, from attacked images to logits
    network: Any  # nn.Module on the device, from the network's input to logits
    pixels: Any  # Pixels
    transform: Any
    data: dict[str, Any]
    randomness: Any  # Randomness
    folder: Any  # RunFolder
    config: dict[str, Any]


def _evaluate(options: argparse.Namespace) -> None:
    from core_tuning.training.optimisation import choose_device

    from .attack.autoattack import check_pyautoattack
    from .attack.pgd import check_torchattacks
    from .evaluation_report import finish
    from .measure import strict_float32
    from .probe import seeded

    check_torchattacks()
    if options.masking_checks or {"square", "autoattack"} & set(options.attacks):
        check_pyautoattack()
    device = choose_device(options.device)
    output = _output(options)
    if not options.resume:
        _check_free(output, options)
    with strict_float32(device), seeded(options.seed):
        evaluation = _prepare(options, output, device)
        with _open_folder(evaluation):
            clean, file, view = _measure(evaluation)
            masking = _look_for_masking(evaluation) if options.masking_checks else []
            finish(evaluation, clean, file, masking, view, examples=EXAMPLES)


def _output(options: argparse.Namespace) -> Path:
    if options.output is not None:
        return options.output
    if options.module is not None:
        file, _, function = options.module.rpartition(":")
        return Path("runs") / f"robustness-{Path(file).stem}-{function}"
    if options.model.is_dir():
        return options.model / "robustness"
    if (options.model.parent / "run.json").is_file():
        return options.model.parent / "robustness"
    return Path("runs") / f"robustness-{options.model.stem}"


def _check_free(output: Path, options: argparse.Namespace) -> None:
    from core_tuning.training.folder import RunFolder

    folder = RunFolder(output, FILES)
    folder.check_start(overwrite=options.overwrite)
    taken = not folder.is_free() and not (output / "rows.jsonl").exists()
    if taken and "attack_space" not in folder.read_run()["options"]:
        raise UserError(
            f"The folder {output} holds a run, not an evaluation: name another with --output."
        )


def _prepare(options: argparse.Namespace, output: Path, device: Any) -> _Evaluation:
    """Load model and images; nothing is written before all of it is known to fit."""
    from core_tuning.data import build_transforms, load_splits
    from core_tuning.training.folder import RunFolder

    from .measure import as_float
    from .probe import PROBED, check_output, inspect_answers
    from .spaces import ResizedInside, choose_images, read_pixels
    from .subject import load_subject
    from .user_module import own_code

    subject = load_subject(options)
    with own_code(f"Moving {subject.facts['source']} to {device}", "name another --device"):
        subject.model.to(device)
    config = subject.config
    splits = load_splits(
        subject.dataset,
        subject.data_dir,
        download=options.download,
        fraction=config.get("fraction", 1.0),
        validation=config.get("validation", 0.1),
        seed=config.get("seed", options.seed),
    )
    if subject.classes is not None and splits.classes != subject.classes:
        raise UserError(
            f"The classes of {subject.dataset} ({', '.join(splits.classes[:3])}, ...) are not the "
            f"model's ({', '.join(subject.classes[:3])}, ...): evaluate it on a data set with the "
            "same class names."
        )
    size = (subject.image_size, subject.image_size)
    check_output(subject.model, len(splits.classes), size)
    images = getattr(splits, options.split)
    if not len(images):
        raise UserError(
            f"The {options.split} split of {subject.dataset} is empty: name another --split."
        )
    wanted = min(DEFAULT_N, len(images)) if options.n is None else options.n
    indices = choose_images(len(images), None if wanted == "all" else wanted, options.seed)
    transform = build_transforms(subject.recipe, subject.image_size).evaluate
    pixels = read_pixels(images, indices, transform, options.attack_space, workers=options.workers)
    _check_sizes(options, pixels)
    model = subject.model
    if options.attack_space == "native":
        model = ResizedInside(model, transform).eval()
    largest = max(pixels.attacked, key=lambda group: len(group.labels)).images
    randomness = inspect_answers(model, as_float(largest[:PROBED].to(device)))
    data = {
        "dataset": subject.dataset,
        "split": options.split,
        "description": splits.split,
        "classes": splits.classes,
        "n": len(indices),
        "total": len(images),
        "seed": options.seed,
        "warnings": [
            *splits.warnings,
            *_images_warning(subject, splits.fingerprint),
            *_validation_warning(options, subject),
        ],
    }
    folder = RunFolder(output, FILES)
    config = _config(options, subject, data, splits.fingerprint)
    return _Evaluation(
        options, subject, model, subject.model, pixels, transform, data, randomness, folder, config
    )


def _images_warning(subject: Any, fingerprint: dict[str, Any]) -> list[str]:
    from core_tuning.data import describe_change

    before = subject.config.get("data")
    change = None if before is None else describe_change(before, fingerprint)
    return [] if change is None else [f"The images are not those of the run: {change}."]


def _validation_warning(options: argparse.Namespace, subject: Any) -> list[str]:
    if options.split != "validation":
        return []
    if subject.config:
        return [
            f"The run's model may have been selected on these images (selection: "
            f"{subject.facts['selection']}): its figures on them are too good."
        ]
    return [
        "The validation images may be carved out of the training images: the model may have been "
        "trained on them."
    ]


def _check_sizes(options: argparse.Namespace, pixels: Any) -> None:
    for images, _ in pixels.attacked:
        height, width = images.shape[-2:]
        largest = (3 * height * width) ** 0.5
        for eps in options.l2:
            if eps > largest:
                raise UserError(
                    f"eps is {eps:g} in the L2 norm, and images of {height}x{width} pixels in "
                    f"[0, 1] are at most {largest:.4g} apart: expected no more."
                )
        squared = {"square", "autoattack"} & set(options.attacks)
        if squared and min(height, width) < SMALLEST_SIDE:
            raise UserError(
                f"Images of {height}x{width} pixels are too small for Square, which needs "
                f"{SMALLEST_SIDE}: leave {' and '.join(sorted(squared))} out of --attacks."
            )


def _config(
    options: argparse.Namespace, subject: Any, data: dict[str, Any], fingerprint: dict[str, Any]
) -> dict[str, Any]:
    """Everything that is needed to repeat the evaluation, as plain values."""
    left_out = ("model", "module", "output", "resume", "overwrite", "budgets", "norm")
    config = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(options).items()
        if name not in left_out
    }
    config |= {"source": subject.facts["source"], "weights": subject.facts["weights"]}
    config["code"] = subject.facts.get("code")
    config |= {"dataset": subject.dataset, "n": data["n"], "total": data["total"]}
    return {"command": "robust evaluate", "options": config, "data": fingerprint}


@contextmanager
def _open_folder(evaluation: _Evaluation) -> Iterator[None]:
    """Hold the folder, started or gone on with."""
    from core_tuning.data import check_same_images

    options, folder, config = evaluation.options, evaluation.folder, evaluation.config
    resumes = options.resume and not folder.is_free()
    may_differ = HARMLESS | {"source"}
    if resumes:
        before = folder.read_run().get("data")
        folder.check_resume({**config, "data": before}, may_differ=may_differ)
        check_same_images(before, config["data"], folder.path)
    with folder.hold():
        if resumes:
            folder.resume(config, may_differ=may_differ)
        else:
            folder.start(config, overwrite=options.overwrite)
        yield


def _measure(evaluation: _Evaluation) -> tuple[dict[str, Any], Any, Any]:
    """Measure clean accuracy and every row."""
    from .attack.view import AttackView
    from .evaluation_report import measure_clean, row_facts
    from .evaluation_rows import Job, RowFile, eps_note, measure_rows
    from .probe import describe_randomness
    from .protocols import choose_protocol

    options, randomness = evaluation.options, evaluation.randomness
    if randomness.is_randomised:
        print(f"note: {describe_randomness(randomness.facts())}")
    clean = measure_clean(evaluation)
    classes = len(evaluation.data["classes"])
    protocols = [
        choose_protocol(
            name, classes, queries=options.square_queries, is_randomised=randomness.is_randomised
        )
        for name in options.attacks
    ]
    notes = [protocol.note for protocol in protocols]
    notes += [eps_note(norm, eps, evaluation.pixels.attacked) for norm, eps in options.budgets]
    for note in filter(None, notes):
        print(f"note: {note}")
    jobs = [Job(protocol, norm, eps) for norm, eps in options.budgets for protocol in protocols]
    file = RowFile(evaluation.folder.path)
    view = AttackView(evaluation.model)
    common, describe = row_facts(evaluation, clean)
    measure_rows(
        jobs, evaluation.model, view, evaluation.pixels, file, common, describe,
        seed=options.seed, batch_size=options.batch_size,
    )  # fmt: skip
    return clean, file, view


def _look_for_masking(evaluation: _Evaluation) -> list[dict[str, Any]]:
    """Check each norm at its largest eps, and keep what was found."""
    from core_tuning.training.folder import append_line

    from .evaluation_rows import read_masking
    from .masking import check_masking
    from .measure import as_float

    options = evaluation.options
    path = evaluation.folder.path / "masking.jsonl"
    found = read_masking(path)
    model, group = evaluation.model, evaluation.pixels.attacked[0]
    space = options.attack_space
    if len(evaluation.pixels.attacked) > 1:
        # Too few of each size to tell anything: the network is looked at without the resizing.
        model, group, space = evaluation.network, evaluation.pixels.network, "input"
    images, labels = (tensor[:MASKING_IMAGES] for tensor in group)
    for norm in ("l2", "linf"):
        eps = max((eps for each, eps in options.budgets if each == norm), default=None)
        if eps is None or any([line["norm"], line["eps"]] == [norm, eps] for line in found):
            continue
        checks = check_masking(
            model, as_float(images), labels, norm, eps, seed=options.seed,
            batch_size=options.batch_size, on_progress=partial(_say, norm),
        )  # fmt: skip
        line = {"norm": norm, "eps": eps, "images": len(images), "space": space}
        line["checks"] = [check._asdict() for check in checks]
        append_line(path, line)
        found.append(line)
    return found


def _say(norm: str, text: str) -> None:
    print(f"masking, {norm}: {text}", file=sys.stderr)
