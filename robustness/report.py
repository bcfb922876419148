"""What an evaluation found: report.json, a page of it, its figures, and the terminal's lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core_tuning.files import csv_bytes, write_atomically, write_json
from core_tuning.report import figures
from core_tuning.report.page import Block, Figure, Page, Section, markdown, write_html
from core_tuning.report.tables import Table, facts, text

from .budgets import describe_eps
from .masking import ABOUT, Check, Checked
from .measure import Accuracy
from .rows import Row
from .subject import Randomness

# What `write_report` writes.
FILES = ("report.json", "report.md", "report.html", "images.csv", "figures/*.png")
# The change between two images may be drawn this many times as large, and no more.
MOST_MAGNIFIED = 100
NORM_TITLES = {"l2": "L2", "linf": "L-infinity"}
RESIZED = (
    "Resized inside the model, in float32; 'usual' is resized by PIL, which rounds to bytes, as in "
    "training and in 'core-tuning evaluate'."
)
_NOT_RUN = "Masked gradients were not looked for: the robust accuracies are upper bounds."


@dataclass(frozen=True)
class Images:
    """What was measured on; `indices` are those of the images in the split."""

    dataset: str
    split: str
    description: str
    classes: list[str]
    n: int
    total: int
    seed: int
    warnings: list[str]
    attack_space: str
    input_size: str
    native_size: str
    indices: list[int]


@dataclass(frozen=True)
class Clean:
    """Accuracy without an attack.

    Attributes:
        accuracy: in the attacked space.
        images: a digit for each image, 1 where it is classified right.
        usual: of the network's input, where that is not what is attacked.
    """

    accuracy: Accuracy
    images: str
    usual: Accuracy | None = None


class Examples(NamedTuple):
    """Images (m, 3, h, w) in [0, 1], clean and adversarial, titles (m,), and the attack's eps."""

    clean: np.ndarray
    adversarial: np.ndarray
    titles: Sequence[str]
    eps_text: str


@dataclass(frozen=True)
class Report:
    """All that an evaluation found.

    Attributes:
        subject: names and values about the model.
        environment: names and values about the machine.
        labels: (n,) the true classes of the images.
    """

    subject: dict[str, Any]
    randomness: Randomness
    data: Images
    environment: dict[str, Any]
    clean: Clean
    rows: list[Row]
    masking: list[Checked]
    labels: list[int]

    def plain(self) -> dict[str, Any]:
        """The contents of report.json."""
        clean: dict[str, Any] = {"space": self.data.attack_space, "images": self.clean.images}
        clean |= _counted(self.clean.accuracy)
        if self.clean.usual is not None:
            clean |= {"usual": _counted(self.clean.usual), "note": RESIZED}
        return {
            "subject": self.subject,
            "randomness": self.randomness.facts(),
            "data": asdict(self.data),
            "environment": self.environment,
            "clean": clean,
            "rows": [asdict(row) for row in self.rows],
            "masking": [found.plain() for found in self.masking],
        }


def _counted(counted: Accuracy) -> dict[str, Any]:
    return {**counted._asdict(), "percent": counted.percent}


def write_report(folder: Path, report: Report, examples: Examples | None = None) -> None:
    """Write report.json, images.csv, the figures, report.md and report.html into a folder.

    images.csv says of each image, by the row that attacked it, whether it stayed right.
    """
    write_json(folder / "report.json", report.plain())
    write_atomically(folder / "images.csv", csv_bytes(_each_image(report)))
    drawn = folder / "figures"
    sections = [
        _accuracy(report, drawn),
        _masking(report.masking, drawn),
        *([] if examples is None else [_examples(examples, drawn)]),
        Section("How to read this", [_reading(report.rows)]),
        Section("Subject", [facts(report.subject)]),
        Section("Data", [facts(asdict(report.data))]),
        Section("Environment", [facts(report.environment)]),
    ]
    first, then = _summary(report)
    page = Page(f"Robustness of {report.subject['name']}", "", sections, [*first, then])
    write_atomically(folder / "report.md", markdown(page, folder).encode())
    write_html(page, folder / "report.html")


def printed(report: Report) -> list[str]:
    """The terminal's lines: what was found, a table, notes and flags."""
    first, then = _summary(report)
    checks = [check for found in report.masking for check in found.checks if check.flagged]
    return [
        *first,
        *then,
        "",
        text(_table(report)),
        "",
        *(f"note: {note}" for note in _notes(report.rows)),
        *(f"FLAG {check.title}: {check.value}, expected {check.expected}" for check in checks),
    ]


def _summary(report: Report) -> tuple[list[str], list[str]]:
    """What must be read before anything else, and what was measured on what."""
    data, subject = report.data, report.subject
    said = verdict([check for found in report.masking for check in found.checks])
    if any(check.flagged for found in report.masking for check in found.checks):
        said = " ".join(_place(found) + verdict(found.checks) for found in report.masking)
    randomised = [report.randomness.sentence()] if report.randomness.is_randomised else []
    chosen = f"{data.n} of {data.total} images drawn with seed {data.seed}"
    space = f"the network's input of {data.input_size}; the images' own size is {data.native_size}"
    if data.attack_space == "native":
        space = f"native, images of {data.native_size}; resized to {data.input_size} inside"
    lines = [
        f"{subject['source']}: {data.split} of {data.dataset} ({data.description}), "
        f"{chosen if data.n < data.total else f'all {data.n} images'}; "
        f"selection: {subject['selection']}",
        f"attack space: {space}; float32; 95% Wilson intervals",
        *(f"warning: {warning}" for warning in data.warnings),
        f"Without an attack {_described(report.clean.accuracy)} are classified right.",
    ]
    budgets: dict[str, list[Row]] = {}
    for row in report.rows:
        budget = f"{row.norm} eps {row.eps_text} ({row.space} pixels)"
        budgets.setdefault(budget, []).append(row)
    for budget, rows in budgets.items():
        worst = min(rows, key=lambda row: row.accuracy.percent)
        lines.append(
            f"At {budget} {_described(worst.accuracy)} stay right under {worst.title}, the "
            "strongest attack that was run."
        )
    weak = [name for name, rows in budgets.items() if "autoattack" not in {r.attack for r in rows}]
    if weak:
        lines.append(
            f"AutoAttack was not run at {', '.join(weak)}: what PGD alone leaves is an upper bound "
            "on robust accuracy."
        )
    return [*randomised, said], lines


def _table(report: Report) -> Table:
    header = ("attack", "norm", "eps", "pixels", "L2 at native resolution", "images", "right",
              "accuracy (%)", "95% interval", "zero gradients (%)")  # fmt: skip
    space, clean = report.data.attack_space, report.clean
    rows: list[tuple[object, ...]] = [("none", "", "0", space, "0", *_cells(clean.accuracy), "")]
    if clean.usual is not None:
        rows.append(("none, resized by PIL", "", "0", "input", "0", *_cells(clean.usual), ""))
    for row in report.rows:
        # Of L-infinity it is the largest that a perturbation can have.
        native = f"{'≤ ' if row.norm == 'linf' else ''}{row.largest_l2_native:.3g}"
        zero = "" if row.zero_gradients is None else f"{100 * row.zero_gradients:.1f}"
        budget = (row.title, row.norm, row.eps_text, row.space, native)
        rows.append((*budget, *_cells(row.accuracy), zero))
    return Table(header, rows)


def _cells(counted: Accuracy) -> tuple[object, ...]:
    interval = f"{counted.low:.2f} to {counted.high:.2f}"
    return counted.n, counted.correct, f"{counted.percent:.2f}", interval


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = [note for row in rows for note in row.notes]
    notes += [f"pyautoattack warns: {warning}" for row in rows for warning in row.warnings]
    return list(dict.fromkeys(notes))


def _each_image(report: Report) -> list[list[Any]]:
    names = [f"{row.attack} {row.norm} {row.eps_text}" for row in report.rows]
    classes = [report.data.classes[label] for label in report.labels]
    digits = [report.clean.images, *(row.images for row in report.rows)]
    rows = zip(report.data.indices, classes, *digits, strict=True)
    return [["index", "class", "clean", *names], *map(list, rows)]


def _described(counted: Accuracy) -> str:
    interval = f"95% interval {counted.low:.1f} to {counted.high:.1f}"
    return f"{counted.percent:.1f}% of {counted.n} images ({interval})"


def verdict(checks: Sequence[Check]) -> str:
    """Say in a sentence what the masking checks found."""
    run = [check for check in checks if check.points]
    flagged = [f'"{check.title}"' for check in run if check.flagged]
    if not run:
        return _NOT_RUN
    if not flagged:
        return f"No sign of masked gradients in {len(run)} check{'s' * (len(run) > 1)}."
    verb = "raises" if len(flagged) == 1 else "raise"
    return (
        f"{len(flagged)} of {len(run)} checks {verb} a flag, against {', '.join(flagged)}. "
        "The robust accuracies are not to be trusted."
    )


def _place(found: Checked) -> str:
    budget = f"{found.norm} eps {describe_eps(found.norm, found.eps)}"
    return f"At {budget}, on {found.images} images: "


def _accuracy(report: Report, drawn: Path) -> Section:
    blocks: list[Block] = [_table(report)]
    if report.rows:
        path = drawn / "robust_accuracy.png"
        save_robust_accuracy(report.rows, report.clean.accuracy, path)
        blocks.append(Figure(path, "Robust accuracy against eps", ""))
    if report.clean.usual is not None:
        blocks.append(RESIZED)
    return Section("Accuracy", [*blocks, *(f"Note: {note}" for note in _notes(report.rows))])


def _masking(masking: Sequence[Checked], drawn: Path) -> Section:
    blocks: list[Block] = [] if masking else [_NOT_RUN]
    header = ("what a sound evaluation shows", "", "found", "no flag for")
    for number, found in enumerate(masking, start=1):
        path = drawn / ("masking.png" if number == 1 else f"masking_{number}.png")
        save_masking(found.checks, path)
        rows = [(c.title, _sign(c), c.value, c.expected) for c in found.checks]
        blocks += [_place(found) + verdict(found.checks), Table(header, rows)]
        blocks.append(Figure(path, "Masking checks", ""))
    shown = {check.name: check.title for found in masking for check in found.checks}
    meanings = {f"{title}:": ABOUT[name].meaning for name, title in shown.items()}
    return Section("Gradient masking", [*blocks, meanings] if masking else blocks)


def _sign(check: Check) -> str:
    if not check.points:
        return "not run"
    return "FLAG" if check.flagged else "ok"


def _examples(examples: Examples, drawn: Path) -> Section:
    path = drawn / "examples.png"
    save_examples(examples, path)
    said = f"PGD-10 at {examples.eps_text}; the difference is magnified as the figure states."
    description = "Clean images, adversarial images, magnified difference"
    return Section("Adversarial images", [Figure(path, description, said)])


def _reading(rows: Sequence[Row]) -> list[str]:
    notes = [
        "An image counts as right under attack if it is right both without the attack and after "
        "it. Every accuracy is an upper bound: a stronger attack can only lower it.",
        "Intervals are 95% Wilson intervals of drawing these images; they say nothing of other "
        "data, of another training seed, or of stronger attacks.",
        "Norms and eps are of images in [0, 1]; the model normalises inside.",
    ]
    if any(row.space == "input" for row in rows):
        notes.append(
            "The attack changes the network's input. If images are enlarged for it, an L2 ball of "
            'the same eps is smaller at their own resolution (column "L2 at native '
            "resolution\"): such rows are not comparable with attacks on the data set's pixels, "
            "RobustBench's for one. --attack-space native measures those."
        )
    if any(row.norm == "linf" for row in rows):
        notes.append(
            "For L-infinity that column is the largest L2 norm that the budget allows, eps √(3hw)."
        )
    if any(row.attack == "pgd10" for row in rows):
        notes.append(
            "PGD-10 is the paper's protocol, for comparison with the paper; the strongest attack "
            "is the result."
        )
    return notes


def save_robust_accuracy(rows: Sequence[Row], clean: Accuracy, path: Path) -> None:
    """Draw robust accuracy against eps: a line for each attack, a panel for each norm and space.

    Args:
        rows: one or more.
        clean: without an attack, drawn at eps 0.
        path: of the PNG file.
    """
    panels: dict[tuple[str, str], dict[str, dict[figures.Place, figures.Mark]]] = {}
    for row in rows:
        lines = panels.setdefault((row.norm, row.space), {})
        line = lines.setdefault(row.title, {(0.0, "0"): _mark(clean)})
        line[row.eps, row.eps_text] = _mark(row.accuracy)
    shown = [
        figures.Panel(
            f"eps ({NORM_TITLES[norm]} norm, {space} pixels, images in [0, 1])",
            "images classified right (%)",
            lines,
        )
        for (norm, space), lines in panels.items()
    ]
    figures.save_lines([shown], path, reading="with 95% intervals")


def _mark(counted: Accuracy) -> figures.Mark:
    return figures.Mark((counted.percent,), interval=(counted.low, counted.high))


def save_masking(checks: Sequence[Check], path: Path) -> None:
    """Draw each masking check's points, and whether it raises a flag."""
    shown = [
        figures.Check(
            check.title,
            check.flagged,
            [(name, value) for name, value in check.points],
            ABOUT[check.name].xlabel,
            ABOUT[check.name].ylabel,
        )
        for check in checks
    ]
    figures.save_checks(shown, path)


def save_examples(examples: Examples, path: Path) -> None:
    """Draw images, what an attack made of them, and the magnified difference."""
    clean, adversarial, titles, eps_text = examples
    change = adversarial - clean
    # A round number that lets the largest change just reach black or white.
    room = 0.5 / max(float(np.abs(change).max()), 0.5 / MOST_MAGNIFIED)
    factor = max(1, int(room))
    difference = np.clip(0.5 + factor * change, 0, 1)
    rows = [
        figures.ImageRow("clean", np.moveaxis(clean, 1, -1), titles),
        figures.ImageRow(f"adversarial\n{eps_text}", np.moveaxis(adversarial, 1, -1)),
        figures.ImageRow(f"difference × {factor},\n0 is grey", np.moveaxis(difference, 1, -1)),
    ]
    figures.save_images(rows, path)
