"""Tables of many runs, by each of DomainBed's rules of model selection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.report.summary import summarise
from core_tuning.report.tables import Table, text
from core_tuning.selection import RULES, Cell, Selected, select

MISSING = "-"


def tables(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """A table a rule: algorithms by target domains, mean and standard error over trials, in %.

    The column "mean" averages the targets of each trial first; it needs all of them.

    Args:
        records: lines of results.jsonl, of one data set.
        names: of its environments.
    """
    return "\n\n".join(_table(title, select(records, rule), names) for title, rule in RULES.items())


def _table(title: str, chosen: Mapping[Cell, Selected], names: Sequence[str]) -> str:
    heading = f"selected by {title}"
    if not chosen:
        hint = "; it needs --test_envs pairs." if title.startswith("leave-one") else "."
        return f"{heading}: no runs for it{hint}"
    rows = []
    for algorithm in dict.fromkeys(cell.algorithm for cell in chosen):
        columns = [accuracies(chosen, algorithm, number) for number in range(len(names))]
        values = [*(list(column.values()) for column in columns), trial_means(columns)]
        rows.append([algorithm, *map(_cell, values)])
    header = ["target", *(f"{number} {name}" for number, name in enumerate(names)), "mean"]
    return text(Table(header, rows, heading))


def accuracies(chosen: Mapping[Cell, Selected], algorithm: str, target: int) -> dict[int, float]:
    """Test accuracy in % of each trial of an algorithm on a target."""
    return {
        cell.trial_seed: 100 * selected.test
        for cell, selected in chosen.items()
        if cell.algorithm == algorithm and cell.target == target
    }


def trial_means(columns: Sequence[Mapping[int, float]]) -> list[float]:
    """Mean over the targets of each trial that has them all."""
    trials = set.intersection(*(set(column) for column in columns)) if columns else set()
    return [sum(column[trial] for column in columns) / len(columns) for trial in sorted(trials)]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return MISSING
    summary = summarise(values)
    return f"{summary.mean:.2f}" if summary.standard_error is None else str(summary)


def selection(records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What each rule chose, for JSON: run folder, step, accuracies and model of every cell."""
    return {
        title: [
            {**cell._asdict(), **selected._asdict(), "model": _saved_model(title, selected)}
            for cell, selected in select(records, rule).items()
        ]
        for title, rule in RULES.items()
    }


def _saved_model(title: str, selected: Selected) -> str | None:
    """The file of the model that a rule chose, or None where it was not kept."""
    own = {"training-domain validation set": "best_iid.pkl",
           "test-domain validation set (oracle)": "model.pkl"}  # fmt: skip
    folder = Path(selected.folder)
    kept = [own.get(title, ""), f"model_step{selected.step}.pkl"]
    return next((str(folder / name) for name in kept if name and (folder / name).exists()), None)
