"""What every training command leaves for a reader: report.html, with its figures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core_tuning.files import csv_bytes, write_atomically

from .figures import ImageRow, save_class_accuracies, save_confusion, save_curves, save_images
from .page import Figure, Page, Section, write_html
from .tables import facts as facts_table

if TYPE_CHECKING:
    from core_tuning.training.evaluate import Evaluation

# Above, a matrix takes more room than anyone reads.
MOST_CLASSES_IN_FULL = 300
MOST_CLASSES_DRAWN = 40
IMAGES_IN_A_ROW = 6
# Of a line of metrics: what is drawn as a loss, and how the names of accuracies in percent end.
_LOSSES = ("loss", "cross_entropy", "contrastive", "penalty")
_ACCURACIES = ("top1", "mean_per_class")


class WorstImages(NamedTuple):
    """Images that the model is most confidently wrong about, the worst first.

    Attributes:
        images: (m, h, w, 3), uint8.
        true: label of each.
        predicted: label that the model gives it.
        confidence: of the model in that label, in [0, 1].
    """

    images: np.ndarray
    true: Sequence[int]
    predicted: Sequence[int]
    confidence: Sequence[float]


def write_run_report(
    folder: Path,
    *,
    title: str,
    command: str,
    facts: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    test: Evaluation | None,
    classes: Sequence[str],
    worst: WorstImages | None = None,
    split: str = "test",
) -> None:
    """Write a run's report.html, its figures and csv tables; report.html comes last.

    Args:
        folder: of the run.
        title: such as "Core-tuning on dtd, seed 0".
        command: that made the run.
        facts: names and values that tell what was run, and what came of it.
        metrics: lines of metrics.jsonl, each with "step", and "train" and "validation" (or one of
            them), of names and numbers: losses, and accuracies in percent.
        test: predictions for the images of `split`; None where there was no measurement.
        classes: (K,) names.
        worst: of the same images.
        split: that `test` and `worst` are of.
    """
    figures = folder / "figures"
    sections = [Section("The run", [facts_table(facts)])]
    curves = _curves(metrics)
    if curves:
        save_curves(curves, figures / "curves.png")
        shown = "Loss and accuracy over the optimiser steps, in training and in validation."
        sections.append(Section("Curves", [Figure(figures / "curves.png", shown, shown)]))
    if test is not None:
        sections += _predictions(folder, test, classes, split)
    if worst is not None and len(worst.images):
        save_images(list(_image_rows(worst, classes)), figures / "worst.png")
        shown = (
            f"The {len(worst.images)} images of the {split} split that the model is most "
            "confidently wrong about: true class → predicted class, confidence."
        )
        sections.append(Section("Worst images", [Figure(figures / "worst.png", shown, shown)]))
    write_html(Page(title, command, sections), folder / "report.html")


def _curves(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Steps and values of each curve, by the panel that it belongs to."""
    panels: dict[str, dict[str, tuple[list[float], list[float]]]] = {"loss": {}, "accuracy (%)": {}}
    for line in metrics:
        for part in ("train", "validation"):
            for name, value in (line.get(part) or {}).items():
                if not name.endswith((*_LOSSES, *_ACCURACIES)):
                    continue
                panel = panels["loss" if name.endswith(_LOSSES) else "accuracy (%)"]
                label = f"{part} {name.replace('_', ' ')}"
                steps, values = panel.setdefault(label, ([], []))
                steps.append(line["step"])
                values.append(value)
    return {label: curves for label, curves in panels.items() if curves}


def _predictions(
    folder: Path, test: Evaluation, classes: Sequence[str], split: str
) -> list[Section]:
    """Confusion and accuracy of each class, as figures and csv.

    Of many classes the confusion table has a line for each pair that occurs, and the figures the
    classes with the most wrong images.
    """
    images = test.per_class().numpy()
    right = test.per_class(test.right).numpy()
    rows: list[list[Any]] = [["class", "images", "right", "accuracy (%)"]]
    rows += [
        [name, n, k, f"{100 * k / n:.2f}" if n else ""]
        for name, n, k in zip(classes, images.tolist(), right.tolist(), strict=True)
    ]
    write_atomically(folder / "classes.csv", csv_bytes(rows))
    write_atomically(folder / "confusion.csv", csv_bytes(list(_confusion_rows(test, classes))))
    shown, which = list(range(len(classes))), "all classes"
    if len(classes) > MOST_CLASSES_DRAWN:
        shown = test.most_confused(MOST_CLASSES_DRAWN)
        which = f"the {len(shown)} of {len(classes)} classes with the most wrong images"
    names = [classes[label] for label in shown]
    figures = folder / "figures"
    save_confusion(
        test.confusion(shown).numpy(), names, figures / "confusion.png", images=images[shown]
    )
    worst_first = sorted(shown, key=lambda label: right[label] / max(1, images[label]))
    percent = {
        f"{classes[label]} ({images[label]})": 100 * right[label] / images[label]
        for label in worst_first
        if images[label]
    }
    save_class_accuracies(percent, figures / "classes.png")
    said = f"of {test.images} images of the {split} split, {test.top1:.2f}% of them right"
    return [
        Section("Accuracy of each class", [
            Figure(figures / "classes.png", f"Accuracy of {which}",
                   f"Accuracy of {which}, with their number of images: {said}; in numbers in "
                   "classes.csv."),
        ]),
        Section("Confusion", [
            Figure(figures / "confusion.png", f"Confusion matrix of {which}",
                   f"True and predicted classes, {which}: {said}; in numbers in confusion.csv."),
        ]),
    ]  # fmt: skip


def _confusion_rows(test: Evaluation, classes: Sequence[str]) -> Iterator[list[Any]]:
    if len(classes) <= MOST_CLASSES_IN_FULL:
        yield ["true \\ predicted", *classes]
        for name, row in zip(classes, test.confusion().tolist(), strict=True):
            yield [name, *row]
        return
    yield ["true", "predicted", "images"]
    pairs = Counter(zip(test.true.tolist(), test.predicted.tolist(), strict=True))
    for (true, predicted), count in sorted(pairs.items()):
        yield [classes[true], classes[predicted], count]


def _image_rows(worst: WorstImages, classes: Sequence[str]) -> Iterator[ImageRow]:
    titles = [
        f"{classes[true]} → {classes[predicted]} {100 * confidence:.0f}%"
        for true, predicted, confidence in zip(*worst[1:], strict=True)
    ]
    for first in range(0, len(titles), IMAGES_IN_A_ROW):
        chosen = slice(first, first + IMAGES_IN_A_ROW)
        yield ImageRow("", worst.images[chosen], titles[chosen])
