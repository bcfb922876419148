"""Write the tables of docs/findings.md out of leave-one-domain-out run folders.

    python tools/domain_table.py runs/emoji/*
    python tools/domain_table.py --factors runs/base runs/no_augmentation runs/batch_8

Reads results.jsonl of each run, of `core-tuning dg` or of DomainBed's train, selects the step by
source validation, and prints markdown: accuracy on each target, and the difference to CETuning
trial by trial, both with 95% intervals (Student-t over trials). With --factors each folder holds
the runs of one setting, and each method's mean over the targets is a column; a folder without a
run of CETuning is compared with the first folder's.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.algorithms.environments import load_environments
from core_tuning.files import read_lines
from core_tuning.report.summary import interval_text
from core_tuning.selection import Selected, select, training_domain_validation

BASELINE = "CETuning"
# Method -> (target, trial) -> accuracy in %.
Accuracies = dict[str, dict[tuple[int, int], float]]


def method_of(record: Mapping[str, Any]) -> str:
    """Name a run's method: its algorithm, and the variant where it is not the default."""
    variant = record["hparams"].get("variant", "equations")
    name = record["args"]["algorithm"]
    return name if variant == "equations" else f"{name}, {variant}"


def read(folders: Iterable[Path]) -> Accuracies:
    """Collect the test accuracy of every finished run, as source validation selects it."""
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for folder in folders:
        if not (folder / "done").exists():
            print(f"{folder} is not finished and left out", file=sys.stderr)
            continue
        lines = read_lines(folder / "results.jsonl")
        records[method_of(lines[0])] += lines
    return {method: _tests(select(lines, training_domain_validation))
            for method, lines in records.items()}  # fmt: skip


def _tests(chosen: Mapping[Any, Selected]) -> dict[tuple[int, int], float]:
    return {(cell.target, cell.trial_seed): 100 * each.test for cell, each in chosen.items()}


def trial_means(values: Mapping[tuple[int, int], float], targets: int) -> dict[int, float]:
    """Mean over the targets of each trial that has them all."""
    trials: dict[int, list[float]] = defaultdict(list)
    for (_, trial), value in values.items():
        trials[trial].append(value)
    return {t: sum(v) / targets for t, v in sorted(trials.items()) if len(v) == targets}


def table(accuracies: Accuracies, names: Sequence[str]) -> str:
    """Make the markdown table."""
    lines = [
        f"| method | {' | '.join(names)} | mean | minus {BASELINE} | trials |",
        "|---" * (len(names) + 4) + "|",
    ]
    baseline = trial_means(accuracies.get(BASELINE, {}), len(names))
    for method, values in accuracies.items():
        columns = [
            [value for (target, _), value in values.items() if target == number]
            for number in range(len(names))
        ]
        means = trial_means(values, len(names))
        shared = [means[trial] - baseline[trial] for trial in means if trial in baseline]
        cells = [interval_text(values) for values in (*columns, list(means.values()))]
        cells.append("" if method == BASELINE else interval_text(shared, sign="+"))
        lines.append(f"| {method} | {' | '.join(cells)} | {len(means)} |")
    return "\n".join(lines)


def factor_table(settings: Mapping[str, Accuracies], targets: int) -> str:
    """Make a markdown table of one row a setting: means over the targets, and differences."""
    methods = list(dict.fromkeys(name for setting in settings.values() for name in setting))
    others = [name for name in methods if name != BASELINE]
    lines = [
        f"| setting | {' | '.join(methods)} | "
        f"{' | '.join(f'{name} minus {BASELINE}' for name in others)} | trials |",
        "|---" * (2 + len(methods) + len(others)) + "|",
    ]
    first = next(iter(settings.values()))
    for name, setting in settings.items():
        means = {method: trial_means(values, targets) for method, values in setting.items()}
        baseline = means.get(BASELINE) or trial_means(first[BASELINE], targets)
        cells = [
            interval_text(list(means[m].values())) if m in means else "as first" for m in methods
        ]
        trials = 0
        for method in others:
            shared = [t for t in means.get(method, {}) if t in baseline]
            cells.append(interval_text([means[method][t] - baseline[t] for t in shared], sign="+"))
            trials = max(trials, len(shared))
        lines.append(f"| {name} | {' | '.join(cells)} | {trials} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    parser.add_argument("--factors", action="store_true",
                        help="each folder holds the runs of one setting, a row")  # fmt: skip
    args = parser.parse_args()
    names = load_environments("EmojiDomains", None).names
    folders = [path for path in args.runs if path.is_dir()]
    if args.factors:
        settings = {
            folder.name: read(sorted(path.parent for path in folder.rglob("results.jsonl")))
            for folder in folders
        }
        print(factor_table(settings, len(names)))
    else:
        print(table(read(folders), names))


if __name__ == "__main__":
    main()
