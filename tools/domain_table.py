"""Write the tables of docs/findings.md out of leave-one-domain-out run folders.

    python tools/domain_table.py runs/emoji/*

Reads results.jsonl of each run, of `core-tuning dg` or of DomainBed's train, selects the step by
source validation, and prints markdown: accuracy on each target, and the difference to CETuning
trial by trial, both with 95% intervals (Student-t over trials).
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.algorithms.environments import load_environments
from core_tuning.algorithms.selection import Selected, select, training_domain_validation
from core_tuning.report.summary import Summary, summarise
from core_tuning.training.folder import read_lines

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
        cells = [_interval(column) for column in columns] + [_interval(list(means.values()))]
        cells.append("" if method == BASELINE else _interval(shared, sign="+"))
        lines.append(f"| {method} | {' | '.join(cells)} | {len(means)} |")
    return "\n".join(lines)


def _interval(values: Sequence[float], sign: str = "") -> str:
    if not values:
        return "-"
    summary: Summary = summarise(values)
    shown = f"{summary.mean:{sign}.2f}"
    return shown if summary.interval is None else f"{shown} ± {summary.interval:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    args = parser.parse_args()
    folders = [path for path in args.runs if path.is_dir()]
    print(table(read(folders), load_environments("EmojiDomains", None).names))


if __name__ == "__main__":
    main()
