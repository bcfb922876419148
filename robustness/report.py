"""report.html and report.md: what an evaluation measured, for who was not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core_tuning.report.page import Block, Figure, Page, Section, markdown, write_html
from core_tuning.report.tables import Table, facts
from core_tuning.training.folder import RunFolder, write_atomically

from .budgets import describe_eps
from .figures import save_examples, save_robust_accuracy
from .masking_report import masking_groups, masking_section, place, verdict
from .probe import describe_randomness


def write_report(
    folder: RunFolder, report: Mapping[str, Any], *, examples: Mapping[str, Any] | None = None
) -> None:
    """Write report.html, report.md and figures/*.png.

    Args:
        folder: takes the files.
        report: the contents of report.json: "subject", "data" and "environment", each of names
            and values; "clean" with "correct", "n" and the 95% interval "low", "high" in percent;
            "rows" with, besides, "attack", "title", "norm", "eps", "eps_text", "space",
            "zero_gradients" (share or None), "largest_l2_native", "notes", "warnings"; "masking",
            a list of {"norm", "eps", "images", "checks"} with checks as dictionaries, or of the
            checks themselves, to which those of the rows are added if they are missing; and
            "randomness", if it is known, the facts of a `Randomness`.
        examples: "clean" and "adversarial" (m, 3, h, w) in [0, 1], "titles" (m,), and "eps_text",
            or "norm" and "eps".
    """
    groups = masking_groups(report)
    figures = folder.path / "figures"
    found = report.get("randomness", {})
    opening = [describe_randomness(found)] if found.get("is_randomised") else []
    sections = [
        _accuracy(report, figures),
        masking_section(groups, figures),
        *([] if examples is None else [_examples(examples, figures)]),
        Section("How to read this", [_reading(report)]),
        *(Section(name.capitalize(), [facts(report[name])])
          for name in ("subject", "data", "environment")),
    ]  # fmt: skip
    title = f"Robustness of {report['subject'].get('name', 'a model')}"
    page = Page(title, "", sections, [*opening, *_summary(report, groups)])
    write_atomically(folder.path / "report.md", markdown(page, folder.path).encode())
    write_html(page, folder.path / "report.html")


def _summary(report: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> list[Block]:
    clean, rows = report["clean"], report["rows"]
    checks = [check for group in groups for check in group["checks"]]
    said = verdict(checks)
    if any(check["flagged"] for check in checks):
        said = " ".join(place(group) + verdict(group["checks"]) for group in groups)
    lines = [f"Without an attack {_described(clean)} are classified right."]
    for norm, eps_text, space in dict.fromkeys(map(_budget, rows)):
        chosen = [row for row in rows if _budget(row) == (norm, eps_text, space)]
        worst = min(chosen, key=lambda row: row["correct"] / row["n"])
        lines.append(
            f"At {norm} eps {eps_text} ({space} pixels) {_described(worst)} stay right under "
            f"{worst['title']}, the strongest attack that was run."
        )
    missing = _without_autoattack(rows)
    if missing:
        lines.append(
            f"AutoAttack was not run at {', '.join(missing)}: what PGD alone leaves is an upper "
            "bound on robust accuracy."
        )
    return [said, lines]


def _without_autoattack(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    budgets = dict.fromkeys(map(_budget, rows))
    strong = {_budget(row) for row in rows if row["attack"] == "autoattack"}
    return [f"{norm} eps {text} ({space})" for norm, text, space in budgets
            if (norm, text, space) not in strong]  # fmt: skip


def _accuracy(report: Mapping[str, Any], figures: Path) -> Section:
    header = ("attack", "norm", "eps", "pixels", "L2 at native resolution", "images", "right",
              "accuracy (%)", "95% interval", "zero gradients (%)")  # fmt: skip
    clean, rows = report["clean"], report["rows"]
    body = [("none", "", "0", clean.get("space", ""), "0", *_figures(clean), "")]
    for row in rows:
        zero = row.get("zero_gradients")
        body.append(
            (
                row["title"], row["norm"], row["eps_text"], row["space"], _native_l2(row),
                *_figures(row), "" if zero is None else f"{100 * zero:.1f}",
            )
        )  # fmt: skip
    blocks: list[Block] = [Table(header, body)]
    if rows:
        path = figures / "robust_accuracy.png"
        save_robust_accuracy(rows, clean, path)
        blocks += [Figure(path, "Robust accuracy against eps", ""), *_common_facts(rows)]
    notes = dict.fromkeys(
        note for row in rows for note in (*row.get("notes", ()), *row.get("warnings", ()))
    )
    return Section("Accuracy", [*blocks, *(f"Note: {note}" for note in notes)])


def _figures(counted: Mapping[str, Any]) -> tuple[Any, ...]:
    interval = f"{counted['low']:.2f} to {counted['high']:.2f}"
    return counted["n"], counted["correct"], f"{_percent(counted):.2f}", interval


def _native_l2(row: Mapping[str, Any]) -> str:
    if "largest_l2_native" not in row:
        return ""
    return f"{'≤ ' if row['norm'] == 'linf' else ''}{row['largest_l2_native']:.3g}"


def _common_facts(rows: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Say once what all rows state alike of how they came about."""
    names = ("split", "selection", "seed", "batch_size", "precision", "device", "input_size",
             "native_size", "versions")  # fmt: skip
    same = {
        name: rows[0][name]
        for name in names
        if name in rows[0] and all(row.get(name) == rows[0][name] for row in rows)
    }
    return [facts(same, "In every row")] if same else []


def _examples(examples: Mapping[str, Any], figures: Path) -> Section:
    eps = _examples_eps(examples)
    path = figures / "examples.png"
    clean, adversarial = (np.asarray(examples[name]) for name in ("clean", "adversarial"))
    save_examples(clean, adversarial, examples["titles"], eps, path)
    said = f"PGD-10 at {eps}; the difference is magnified as the figure states."
    description = "Clean images, adversarial images, magnified difference"
    return Section("Adversarial images", [Figure(path, description, said)])


def _examples_eps(examples: Mapping[str, Any]) -> str:
    if "eps_text" in examples:
        return str(examples["eps_text"])
    return f"{examples['norm']} eps {describe_eps(examples['norm'], examples['eps'])}"


def _reading(report: Mapping[str, Any]) -> list[str]:
    notes = [
        "An image counts as right under attack if it is right both without the attack and after "
        "it. Every accuracy is an upper bound: a stronger attack can only lower it.",
        "Intervals are 95% Wilson intervals of drawing these images; they say nothing of other "
        "data, of another training seed, or of stronger attacks.",
        "Norms and eps are of images in [0, 1]; the model normalises inside.",
    ]
    if any(row["space"] == "input" for row in report["rows"]):
        notes.append(
            "The attack changes the network's input. If images are enlarged for it, an L2 ball of "
            'the same eps is smaller at their own resolution (column "L2 at native '
            "resolution\"): such rows are not comparable with attacks on the data set's pixels, "
            "RobustBench's for one. --attack-space native measures those."
        )
    if any(row["norm"] == "linf" for row in report["rows"]):
        notes.append(
            "For L-infinity that column is the largest L2 norm that the budget allows, eps √(3hw)."
        )
    if any(row["attack"] == "pgd10" for row in report["rows"]):
        notes.append(
            "PGD-10 is the paper's protocol, for comparison with the paper; the strongest attack "
            "is the result."
        )
    return notes


def _budget(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["norm"], row["eps_text"], row["space"]


def _percent(counted: Mapping[str, Any]) -> float:
    return 100 * counted["correct"] / counted["n"]


def _described(counted: Mapping[str, Any]) -> str:
    interval = f"95% interval {counted['low']:.1f} to {counted['high']:.1f}"
    return f"{_percent(counted):.1f}% of {counted['n']} images ({interval})"
