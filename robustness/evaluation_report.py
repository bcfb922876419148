"""What an evaluation reports beside its rows, and the table that the terminal shows."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from core_tuning.files import write_json
from core_tuning.training.folder import environment

from .attack.view import AttackView
from .budgets import describe_eps
from .evaluation_rows import RowFile
from .masking_checks import row_checks
from .measure import accuracy, as_float, classify, device_of
from .probe import describe_randomness
from .protocols import PROTOCOLS
from .spaces import describe_sizes, l2_equivalent

VERSIONED = ("core-tuning", "torch", "torchvision", "torchattacks", "pyautoattack")
_MISSING = "not installed"


def measure_clean(evaluation: Any) -> dict[str, Any]:
    """Measure accuracy without an attack, in the attacked space and at the network's input."""
    batch_size = evaluation.options.batch_size
    space = evaluation.options.attack_space
    right = 0
    for images, labels in evaluation.pixels.attacked:
        predicted = classify(evaluation.model, images, batch_size=batch_size)
        right += int((predicted == labels).sum())
    counted = accuracy(right, evaluation.data["n"])
    clean = {"space": space, **counted._asdict(), "percent": counted.percent}
    if space == "native":
        images, labels = evaluation.pixels.network
        predicted = classify(evaluation.network, images, batch_size=batch_size)
        usual = accuracy(int((predicted == labels).sum()), len(labels))
        clean["usual"] = {**usual._asdict(), "percent": usual.percent}
        clean["note"] = (
            "Resized inside the model, in float32; 'usual' is resized by PIL, which rounds to "
            "bytes, as in training and in 'core-tuning evaluate'."
        )
    return clean


def versions() -> dict[str, str]:
    """Return the versions of what a row depends on."""
    found = {}
    for name in VERSIONED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _MISSING
    return found


def row_facts(
    evaluation: Any, clean: dict[str, Any]
) -> tuple[dict[str, Any], Callable[[str, float], dict[str, Any]]]:
    """Return what every row states alike, and a function of (norm, eps) for what differs."""
    options, pixels = evaluation.options, evaluation.pixels
    common = {
        "space": options.attack_space,
        "input_size": describe_sizes([tuple(pixels.network.images.shape[-2:])]),
        "native_size": describe_sizes(pixels.sizes),
        "clean_correct": clean["correct"],
        "split": options.split,
        "selection": evaluation.subject.facts["selection"],
        "seed": options.seed,
        "batch_size": options.batch_size,
        "precision": "float32",
        "device": str(device_of(evaluation.model)),
        "randomised": evaluation.randomness.is_randomised,
        "versions": versions(),
    }

    def describe(norm: str, eps: float) -> dict[str, Any]:
        size = l2_equivalent(norm, eps, options.attack_space, pixels, evaluation.transform)
        return {
            "largest_l2": size.largest,
            "largest_l2_native": size.native,
            "largest_l2_native_range": [size.low, size.high],
        }

    return common, describe


def finish(
    evaluation: Any,
    clean: dict[str, Any],
    file: RowFile,
    masking: list[dict[str, Any]],
    view: AttackView,
    *,
    examples: int,
) -> None:
    """Write report.json, report.html, report.md and the figures, and print the table."""
    from .report import write_report

    for found in masking:
        rows = [row for row in file.rows if row["norm"] == found["norm"]]
        found["checks"] = [*found["checks"], *(check._asdict() for check in row_checks(rows))]
    folder, options = evaluation.folder, evaluation.options
    space = {
        "attack_space": options.attack_space,
        "input_size": describe_sizes([tuple(evaluation.pixels.network.images.shape[-2:])]),
        "native_size": describe_sizes(evaluation.pixels.sizes),
        "indices": evaluation.pixels.indices,
    }
    report = {
        "subject": evaluation.subject.facts,
        "randomness": evaluation.randomness.facts(),
        "data": {**evaluation.data, **space},
        "environment": {**environment(), **versions(), "device": str(device_of(evaluation.model))},
        "clean": clean,
        "rows": file.rows,
        "masking": masking,
    }
    write_json(folder.path / "report.json", report)
    write_report(folder, report, examples=_examples(evaluation, view, examples))
    for line in lines(report):
        print(line)
    print(f"see {folder.path}/report.html, report.md, report.json, rows.jsonl and figures/")


def _examples(evaluation: Any, view: AttackView, count: int) -> dict[str, Any] | None:
    """Attack a few images that are classified right, by PGD-10 at the first norm's largest eps."""
    options = evaluation.options
    images, labels = max(evaluation.pixels.attacked, key=lambda group: len(group.labels))
    predicted = classify(evaluation.model, images, batch_size=options.batch_size)
    chosen = (predicted == labels).nonzero().flatten()[:count]
    if not len(chosen):
        return None
    norm = options.budgets[0][0]
    eps = max(eps for each, eps in options.budgets if each == norm)
    device = device_of(evaluation.model)
    clean, truth = as_float(images[chosen].to(device)), labels[chosen]
    attack = PROTOCOLS["pgd10"].attack
    adversarial = attack(view, clean, truth.to(device), norm, eps, options.seed)
    classes = evaluation.data["classes"]
    fooled = classify(evaluation.model, adversarial, batch_size=options.batch_size)
    return {
        "clean": np.asarray(clean.cpu()),
        "adversarial": np.asarray(adversarial.cpu()),
        "titles": [
            f"{classes[true]} → {classes[now]}" if true != now else f"{classes[true]} (kept)"
            for true, now in zip(truth.tolist(), fooled.tolist(), strict=True)
        ],
        "norm": norm,
        "eps": eps,
    }


def lines(report: dict[str, Any]) -> list[str]:
    """Return the terminal's lines: what was measured, a table, and the flags."""
    subject, data, clean = report["subject"], report["data"], report["clean"]
    chosen = f"{data['n']} of {data['total']} images drawn with seed {data['seed']}"
    if data["n"] == data["total"]:
        chosen = f"all {data['n']} images"
    randomness = report["randomness"]
    said = [
        *([describe_randomness(randomness)] if randomness["is_randomised"] else []),
        f"{subject['source']}: {data['split']} of {data['dataset']} ({data['description']}), "
        f"{chosen}; selection: {subject['selection']}",
        f"attack space: {_space(data)}; float32; 95% Wilson intervals",
        *(f"warning: {warning}" for warning in data["warnings"]),
        "",
        *_aligned(
            [_HEADER, _clean_row("clean", clean), *_usual(clean), *map(_row, report["rows"])]
        ),
        "",
    ]
    notes = dict.fromkeys(
        [*(note for row in report["rows"] for note in row["notes"])]
        + [f"pyautoattack warns: {text}" for row in report["rows"] for text in row["warnings"]]
    )
    return [*said, *(f"note: {note}" for note in notes), *_flags(report["masking"])]


_HEADER = (
    "attack", "norm", "eps", "accuracy %", "95% interval", "right", "L2 at native", "zero gradients"
)  # fmt: skip


def _space(data: dict[str, Any]) -> str:
    native, network = data["native_size"], data["input_size"]
    if data["attack_space"] == "native":
        return f"native, images of {native}; resized to {network} inside the model"
    return f"the network's input of {network}; the images' own size is {native}"


def _clean_row(title: str, clean: dict[str, Any]) -> tuple[str, ...]:
    interval = f"[{clean['low']:.2f}, {clean['high']:.2f}]"
    right = f"{clean['correct']}/{clean['n']}"
    return (title, "", "", f"{clean['percent']:.2f}", interval, right, "", "")


def _usual(clean: dict[str, Any]) -> list[tuple[str, ...]]:
    return [_clean_row("clean, resized by PIL", clean["usual"])] if "usual" in clean else []


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    zero = row["zero_gradients"]
    return (
        row["title"],
        row["norm"],
        row["eps_text"],
        f"{row['robust']:.2f}",
        f"[{row['low']:.2f}, {row['high']:.2f}]",
        f"{row['correct']}/{row['n']}",
        # Of L-infinity it is the largest that a perturbation can have.
        f"{'<= ' if row['norm'] == 'linf' else ''}{row['largest_l2_native']:.3g}",
        "" if zero is None else f"{100 * zero:.1f}%",
    )


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _flags(masking: list[dict[str, Any]]) -> list[str]:
    said = []
    for line in masking:
        flagged = [check for check in line["checks"] if check["flagged"]]
        budget = f"{line['norm']}, eps {describe_eps(line['norm'], line['eps'])}"
        count = f"{len(line['checks'])} masking checks ({budget}, {line['images']} images)"
        said.append(f"{count}: {len(flagged)} flagged")
        said += [
            f"FLAG {check['title']}: {check['value']}, expected {check['expected']}"
            for check in flagged
        ]
    return said
