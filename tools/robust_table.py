"""Write tables out of adversarially fine-tuned and evaluated runs.

    core-tuning sweep run emoji_robustness
    python tools/robust_table.py runs/sweep-emoji_robustness/runs/* --figure clean_robust.png

Reads what `core-tuning robust evaluate` left in each run's folder, and prints markdown: for each
budget, clean accuracy and accuracy under each attack by method, and differences to AT-CE seed by
seed, with 95% intervals (Student-t over seeds). The figure has clean accuracy against that under
the last attack named, a panel a budget and a point a run.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.report.summary import interval_text
from core_tuning.robustness.figures import save_clean_against_robust

BASELINE = "AT-CE"
CLEAN = "clean"
METHODS = {"ce": "CE", "ce_con": "CE-Con", "core_tuning": "Core-tuning"}


class Place(NamedTuple):
    """What an accuracy was measured at."""

    budget: str
    method: str
    quantity: str


# Accuracy in % by seed.
Accuracies = dict[Place, dict[int, float]]


def method_of(subject: Mapping[str, Any]) -> str:
    """Name a run's method as the paper's Table 9 does."""
    name = METHODS[subject["method"]]
    if subject.get("variant", "equations") != "equations":
        name += f", {subject['variant']}"
    return f"AT-{name}" if subject.get("adversarial") else name


def rows_of(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Rows at the budget that the run was trained for; all of them if it was trained plainly."""
    trained = report["subject"].get("adversarial")
    if not trained:
        return report["rows"]
    wanted = trained["norm"], trained["eps_text"]
    return [row for row in report["rows"] if (row["norm"], row["eps_text"]) == wanted]


def read(folders: Iterable[Path]) -> Accuracies:
    """Collect the accuracies of every evaluated run at each budget that it was measured at."""
    found: Accuracies = defaultdict(dict)
    for folder in folders:
        path = folder / "robustness" / "report.json"
        if not path.exists():
            print(f"{folder} is not evaluated and left out", file=sys.stderr)
            continue
        report = json.loads(path.read_text())
        method, seed = method_of(report["subject"]), report["subject"]["seed"]
        for row in rows_of(report):
            budget = f"{row['norm']} {row['eps_text']}"
            place = Place(budget, method, row["title"])
            if seed in found[place]:
                sys.exit(f"{folder} is a second run of {method}, {budget}, seed {seed}: give the "
                         "runs of one setting.")  # fmt: skip
            found[place][seed] = row["robust"]
            found[Place(budget, method, CLEAN)][seed] = report["clean"]["percent"]
    return found


def quantities(accuracies: Accuracies) -> list[str]:
    """Clean first, then the attacks in the order of the reports."""
    names = dict.fromkeys(place.quantity for place in accuracies)
    return [CLEAN, *(name for name in names if name != CLEAN)]


def table(accuracies: Accuracies) -> str:
    """Make a markdown table of one row a budget and method.

    The differences are of clean accuracy and of that under the last attack.
    """
    columns = quantities(accuracies)
    compared = [CLEAN, columns[-1]]
    differences = [f"{name} minus {BASELINE}" for name in compared]
    lines = [
        f"| budget | method | {' | '.join([*columns, *differences])} | seeds |",
        "|---" * (3 + len(columns) + len(compared)) + "|",
    ]
    rows = dict.fromkeys((place.budget, place.method) for place in accuracies)
    for budget, method in sorted(rows, key=lambda row: (row[0], order(row[1]))):
        measured = {name: accuracies.get(Place(budget, method, name), {}) for name in columns}
        cells = [interval_text(list(values.values())) for values in measured.values()]
        for name in compared:
            against = accuracies.get(Place(budget, BASELINE, name), {})
            pairs = paired(measured[name], against)
            cells.append("" if method == BASELINE else interval_text(pairs, sign="+"))
        lines.append(f"| {budget} | {method} | {' | '.join(cells)} | {len(measured[CLEAN])} |")
    return "\n".join(lines)


def order(method: str) -> tuple[bool, str]:
    """What methods are sorted by: plainly trained ones first."""
    return method.startswith("AT-"), method


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> list[float]:
    """Differences of the seeds that both have."""
    return [values[seed] - baseline[seed] for seed in values if seed in baseline]


def overall(accuracies: Accuracies, quantity: str) -> str:
    """Say how each method differs from the baseline, averaged over the budgets of each seed."""
    places = [place for place in accuracies if place.method.startswith("AT-")]
    budgets = dict.fromkeys(place.budget for place in places)
    lines = []
    for method in dict.fromkeys(p.method for p in places if p.method != BASELINE):
        by_seed: dict[int, list[float]] = defaultdict(list)
        for budget in budgets:
            values = accuracies.get(Place(budget, method, quantity), {})
            baseline = accuracies.get(Place(budget, BASELINE, quantity), {})
            for seed in values.keys() & baseline.keys():
                by_seed[seed].append(values[seed] - baseline[seed])
        means = [sum(each) / len(each) for each in by_seed.values() if len(each) == len(budgets)]
        shown = interval_text(means, sign="+")
        lines.append(
            f"- {method} minus {BASELINE}, {quantity}, mean of {len(budgets)} budgets: {shown} "
            f"({len(means)} seeds)"
        )
    return "\n".join(lines)


def panels(accuracies: Accuracies, quantity: str) -> dict[str, list[tuple[str, float, float]]]:
    """Method, clean accuracy and accuracy under an attack of every run, by budget."""
    by_budget: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for place in sorted(accuracies, key=lambda place: (place.budget, order(place.method))):
        if place.quantity == quantity:
            clean = accuracies[place._replace(quantity=CLEAN)]
            by_budget[place.budget] += [
                (place.method, clean[seed], robust) for seed, robust in accuracies[place].items()
            ]
    return by_budget


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of evaluated runs")
    parser.add_argument("--figure", type=Path, help="PNG file to write")
    args = parser.parse_args(argv)
    accuracies = read(path for path in args.runs if path.is_dir())
    if not accuracies:
        parser.error("none of the folders is an evaluated run: give those that hold robustness/.")
    names = quantities(accuracies)
    print(table(accuracies))
    print()
    print("\n".join(overall(accuracies, name) for name in names))
    if args.figure:
        title = f"accuracy under {names[-1]} (%)"
        save_clean_against_robust(panels(accuracies, names[-1]), args.figure, ylabel=title)


if __name__ == "__main__":
    main()
