"""What an evaluation found: report.json, a page of it, its figures, and the terminal's lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core_tuning.files import csv_bytes, write_atomically, write_json
from core_tuning.report import figures
from core_tuning.report.page import Block, Figure, Page, Section, markdown, write_html
from core_tuning.report.tables import Table, facts, text

from .budgets import describe_eps
from .masking import Check, Checked
from .rows import Accuracy, Row
from .subject import Randomness

# What `write_report` writes.
FILES = ("report.json", "report.md", "report.html", "images.csv", "figures/*.png")
# The change between two images may be drawn this many times as large, and no more.
MOST_MAGNIFIED = 100
NORM_TITLES = {"l2": "L2", "linf": "L-infinity"}
_NOT_RUN = "Masked gradients were not looked for: the robust accuracies are upper bounds."


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that an evaluation found.

    Attributes:
        subject: names and values about the model.
        data: names and values about the images, "indices" in the split among them.
        environment: names and values about the machine.
        labels: (n,) the true classes of the images.
        clean: accuracy without an attack, in the attacked space.
        clean_images: a digit for each image, 1 where it is classified right.
    """

    subject: dict[str, Any]
    randomness: Randomness
    data: dict[str, Any]
    labels: list[int]
    environment: dict[str, Any]
    clean: Accuracy
    clean_images: str
    rows: list[Row]
    masking: list[Checked]

    @property
    def checks(self) -> list[Check]:
        """The masking checks at all budgets."""
        return [check for found in self.masking for check in found.checks]

    @property
    def notes(self) -> list[str]:
        """What is to be said of the rows."""
        said = [note for row in self.rows for note in row.notes]
        said += [f"pyautoattack warns: {each}" for row in self.rows for each in row.warnings]
        return list(dict.fromkeys(said))


def write_report(folder: Path, report: Report, more: Sequence[Section] = ()) -> None:
    """Write report.json, images.csv, the figures, report.md and report.html into a folder.

    images.csv says of each image, by the row that attacked it, whether it stayed right. Sections
    that are given stand behind those of the figures.
    """
    randomness = report.randomness
    contents = {
        "subject": report.subject,
        "randomness": {"is_randomised": randomness.is_randomised, **randomness._asdict()},
        "data": report.data,
        "environment": report.environment,
        "clean": {**report.clean._asdict(), "images": report.clean_images},
        "rows": [asdict(row) for row in report.rows],
        "masking": [asdict(found) for found in report.masking],
    }
    write_json(folder / "report.json", contents)
    names = [f"{row.attack} {row.norm} {row.eps_text}" for row in report.rows]
    classes = [report.data["classes"][label] for label in report.labels]
    digits = [report.clean_images, *(row.images for row in report.rows)]
    each = zip(report.data["indices"], classes, *digits, strict=True)
    write_atomically(
        folder / "images.csv", csv_bytes([["index", "class", "clean", *names], *map(list, each)])
    )
    sections = [
        accuracy_section(report, folder / "figures"),
        masking_section(report.masking),
        *more,
        Section("How to read this", [_reading(report)]),
        Section("Subject", [facts(report.subject)]),
        Section("Data", [facts(report.data)]),
        Section("Environment", [facts(report.environment)]),
    ]
    first, then = _summary(report)
    page = Page(f"Robustness of {report.subject['name']}", "", sections, [*first, then])
    write_atomically(folder / "report.md", markdown(page, folder).encode())
    write_html(page, folder / "report.html")


def printed(report: Report) -> list[str]:
    """The terminal's lines: what was found, a table, notes and flags."""
    first, then = _summary(report)
    flags = [
        f"FLAG {check.about.title}: {check.value}, expected {check.expected}"
        for check in report.checks
        if check.flagged
    ]
    notes = [f"note: {note}" for note in report.notes]
    return [*first, *then, "", text(_table(report)), "", *notes, *flags]


def _summary(report: Report) -> tuple[list[str], list[str]]:
    """What must be read before anything else, and what was measured on what."""
    data, subject, n = report.data, report.subject, report.data["n"]
    first = [report.randomness.sentence()] if report.randomness.is_randomised else []
    if any(check.flagged for check in report.checks):
        first.append(" ".join(map(_verdict_there, report.masking)))
    else:
        first.append(verdict(report.checks))
    chosen = f"all {n} images"
    if n < data["total"]:
        chosen = f"{n} of {data['total']} images drawn with seed {data['seed']}"
    at_input, native = data["input_size"], data["native_size"]
    space = f"the network's input of {at_input}; the images' own size is {native}"
    if data["attack_space"] == "native":
        space = f"native, images of {native}; resized to {at_input} inside"
    lines = [
        f"{subject['source']}: {data['split']} of {data['dataset']} ({data['description']}), "
        f"{chosen}; selection: {subject['selection']}",
        f"attack space: {space}; float32; 95% Wilson intervals",
        *(f"warning: {warning}" for warning in data["warnings"]),
        f"Without an attack {_described(report.clean)} are classified right.",
    ]
    budgets: dict[str, list[Row]] = {}
    for row in report.rows:
        budgets.setdefault(f"{row.norm} eps {row.eps_text} ({row.space} pixels)", []).append(row)
    for budget, rows in budgets.items():
        worst = min(rows, key=lambda row: row.robust)
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
    return first, lines


def _described(counted: Accuracy) -> str:
    interval = f"95% interval {counted.low:.1f} to {counted.high:.1f}"
    return f"{counted.percent:.1f}% of {counted.n} images ({interval})"


def _verdict_there(found: Checked) -> str:
    budget = f"{found.norm} eps {describe_eps(found.norm, found.eps)}"
    return f"At {budget}, on {found.images} images: {verdict(found.checks)}"


def verdict(checks: Sequence[Check]) -> str:
    """Say in a sentence what the masking checks found."""
    run = [check for check in checks if check.ran]
    flagged = [f'"{check.about.title}"' for check in run if check.flagged]
    if not run:
        return _NOT_RUN
    if not flagged:
        return f"No sign of masked gradients in {len(run)} check{'s' * (len(run) > 1)}."
    return (
        f"{len(flagged)} of {len(run)} checks {'raises' if len(flagged) == 1 else 'raise'} a flag, "
        f"against {', '.join(flagged)}. The robust accuracies are not to be trusted."
    )


def _table(report: Report) -> Table:
    header = ("attack", "norm", "eps", "pixels", "L2 at native resolution", "images", "right",
              "accuracy (%)", "95% interval", "zero gradients (%)")  # fmt: skip

    def counted(found: Accuracy) -> tuple[object, ...]:
        interval = f"{found.low:.2f} to {found.high:.2f}"
        return found.n, found.correct, f"{found.percent:.2f}", interval

    rows = [("none", "", "0", report.data["attack_space"], "0", *counted(report.clean), "")]
    for row in report.rows:
        # Of L-infinity it is the largest that a perturbation can have.
        native = f"{'≤ ' if row.norm == 'linf' else ''}{row.largest_l2_native:.3g}"
        zero = "" if row.zero_gradients is None else f"{100 * row.zero_gradients:.1f}"
        budget = (row.norm, row.eps_text, row.space, native)
        rows.append((row.title, *budget, *counted(row.accuracy), zero))
    return Table(header, rows)


def accuracy_section(report: Report, drawn: Path) -> Section:
    """The table, and robust accuracy against eps: a line an attack, a panel a norm."""

    def mark(counted: Accuracy) -> figures.Mark:
        return figures.Mark((counted.percent,), interval=(counted.low, counted.high))

    blocks: list[Block] = [_table(report)]
    panels: dict[str, dict[str, dict[figures.Place, figures.Mark]]] = {}
    for row in report.rows:
        lines = panels.setdefault(row.norm, {})
        line = lines.setdefault(row.title, {(0.0, "0"): mark(report.clean)})
        line[row.eps, row.eps_text] = mark(row.accuracy)
    space = report.data["attack_space"]
    shown = [
        figures.Panel(
            f"eps ({NORM_TITLES[norm]} norm, {space} pixels, images in [0, 1])",
            "images classified right (%)",
            lines,
        )
        for norm, lines in panels.items()
    ]
    if shown:
        path = drawn / "robust_accuracy.png"
        figures.save_lines([shown], path, reading="with 95% intervals")
        blocks.append(Figure(path, "Robust accuracy against eps", ""))
    return Section("Accuracy", [*blocks, *(f"Note: {note}" for note in report.notes)])


def masking_section(masking: Sequence[Checked]) -> Section:
    """A table of the checks at each budget, and what each check means."""
    blocks: list[Block] = []
    meanings: dict[str, str] = {}
    header = ("what a sound evaluation shows", "", "found", "no flag for")
    for found in masking:
        rows = []
        for check in found.checks:
            sign = "FLAG" if check.flagged else "ok" if check.ran else "not run"
            rows.append((check.about.title, sign, check.value, check.expected))
            meanings[f"{check.about.title}:"] = check.about.meaning
        blocks += [_verdict_there(found), Table(header, rows)]
    return Section("Gradient masking", [*blocks, meanings] if masking else [_NOT_RUN])


def examples_section(
    clean: np.ndarray, adversarial: np.ndarray, titles: Sequence[str], eps_text: str, drawn: Path
) -> Section:
    """Images (m, 3, h, w) in [0, 1], what an attack made of them, and the magnified difference."""
    path = drawn / "examples.png"
    change = adversarial - clean
    # A round number that lets the largest change just reach black or white.
    factor = int(0.5 / max(float(np.abs(change).max()), 0.5 / MOST_MAGNIFIED)) or 1
    difference = np.clip(0.5 + factor * change, 0, 1)
    rows = [
        figures.ImageRow("clean", np.moveaxis(clean, 1, -1), titles),
        figures.ImageRow(f"adversarial\n{eps_text}", np.moveaxis(adversarial, 1, -1)),
        figures.ImageRow(f"difference × {factor},\n0 is grey", np.moveaxis(difference, 1, -1)),
    ]
    figures.save_images(rows, path)
    said = f"PGD-10 at {eps_text}; the difference is magnified as the figure states."
    description = "Clean images, adversarial images, magnified difference"
    return Section("Adversarial images", [Figure(path, description, said)])


def _reading(report: Report) -> list[str]:
    native = report.data["attack_space"] == "native"
    return [
        "An image counts as right under attack if it is right both without the attack and after "
        "it. Every accuracy is an upper bound: a stronger attack can only lower it.",
        "Intervals are 95% Wilson intervals of drawing these images; they say nothing of other "
        "data, of another training seed, or of stronger attacks.",
        "Norms and eps are of images in [0, 1]; the model normalises inside.",
        "The model resizes inside, in float32, where PIL rounds to bytes: a few predictions may "
        "differ from those of 'core-tuning evaluate'."
        if native
        else "The attack changes the network's input. If images are enlarged for it, an L2 ball of "
        'the same eps is smaller at their own resolution (column "L2 at native resolution"): such '
        "rows are not comparable with attacks on the data set's pixels, RobustBench's for one. "
        "--attack-space native measures those.",
        "For L-infinity that column is the largest L2 norm that the budget allows, eps √(3hw).",
        "PGD-10 is the paper's protocol, for comparison with the paper; the strongest attack is "
        "the result.",
    ]
