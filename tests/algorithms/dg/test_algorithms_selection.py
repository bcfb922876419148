"""Model selection on made-up records, beside DomainBed's own classes."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from core_tuning import selection as rules
from core_tuning.algorithms.tables import selection, tables
from core_tuning.selection import RULES, Cell, select

ENVIRONMENTS = 4
NAMES = ["art", "cartoon", "photo", "a domain of a very long name"]
IID, LEAVE_ONE_OUT, ORACLE = RULES
DOMAINBED = """
import json, sys
from domainbed import model_selection as m
from domainbed.lib import reporting
from domainbed.lib.query import Q
grouped = reporting.get_grouped_records(Q(json.load(sys.stdin)))
found = []
for rule in (m.IIDAccuracySelectionMethod, m.LeaveOneOutSelectionMethod, m.OracleSelectionMethod):
    for group in grouped:
        best = rule.hparams_accs(group["records"])
        if len(best):
            chosen = best[0][0]
            found.append([rule.name, group["dataset"], group["algorithm"], group["test_env"],
                          group["trial_seed"], chosen["val_acc"], chosen["test_acc"],
                          best[0][1][0]["args"]["hparams_seed"]])
print(json.dumps(found))
"""


def record(targets, step=0, *, algorithm="CoreTuning", trial=0, hparams=0, accuracy=None):
    """A line of results.jsonl; accuracy(environment, part) in [0, 1]."""
    accuracy = accuracy or (lambda number, part: 0.5)
    line = {
        f"env{number}_{part}_acc": accuracy(number, part)
        for number in range(ENVIRONMENTS)
        for part in ("in", "out")
    }
    name = "-".join(map(str, targets))
    args = {
        "dataset": "PACS", "algorithm": algorithm, "test_envs": list(targets),
        "trial_seed": trial, "hparams_seed": hparams,
        "output_dir": f"{algorithm}/{name}/{trial}/{hparams}",
    }  # fmt: skip
    return {**line, "step": step, "args": args}


def sweep(generator, *, levels, pairs=True, keep=1.0):
    """Records of many runs, accuracies drawn from few levels so that there are ties."""
    sizes = (1, 2) if pairs else (1,)

    def drawn(number, part):
        return int(generator.integers(levels)) / (levels - 1)

    lines = []
    for size in sizes:
        for targets in itertools.combinations(range(ENVIRONMENTS), size):
            for algorithm, trial, hparams, step in itertools.product(
                ("CoreTuning", "CETuning"), (0, 1), (0, 2, 10), (0, 9, 100)
            ):
                options = {"algorithm": algorithm, "trial": trial, "hparams": hparams}
                lines.append(record(targets, step, **options, accuracy=drawn))
    return [line for line in lines if generator.random() < keep]


@pytest.mark.parametrize(
    ("levels", "pairs", "keep"),
    [(1001, True, 1.0), (3, True, 1.0), (2, True, 1.0), (3, True, 0.9), (1001, False, 1.0)],
)
def test_the_rules_are_domainbeds(kit, checkout, levels, pairs, keep):
    generator = np.random.default_rng(levels)
    records = sweep(generator, levels=levels, pairs=pairs, keep=keep)
    ours = [
        [title, *cell, chosen.validation, chosen.test, chosen.hparams_seed]
        for title, rule in RULES.items()
        for cell, chosen in select(records, rule).items()
    ]
    theirs = kit.domainbed(checkout, DOMAINBED, records)
    assert sorted(ours) == sorted(theirs)
    assert {row[0] for row in ours} == (set(RULES) if pairs else {IID, ORACLE})


def test_source_validation_chooses_step_and_hyper_parameters():
    def near(number, part, base):
        return base + 0.01 * number + (0.001 if part == "in" else 0)

    records = [
        record([1], step, hparams=hparams, accuracy=lambda n, p, b=base: near(n, p, b))
        for step, hparams, base in [(0, 0, 0.3), (5, 0, 0.6), (9, 0, 0.4), (0, 3, 0.5)]
    ]
    (cell, chosen), *rest = select(records, RULES[IID]).items()
    assert not rest
    assert cell == Cell("PACS", "CoreTuning", 1, 0)
    assert (chosen.step, chosen.hparams_seed) == (5, 0)
    assert chosen.folder == "CoreTuning/1/0/0"
    assert chosen.validation == pytest.approx(0.6 + 0.01 * (0 + 2 + 3) / 3)
    assert chosen.test == pytest.approx(0.611)
    assert rules.source_accuracy(records[1]) == chosen.validation


def test_the_oracle_takes_the_last_step():
    records = [
        record([0], 0, accuracy=lambda n, p: 0.9),
        record([0], 7, accuracy=lambda n, p: 0.2 if p == "in" else 0.1),
    ]
    (chosen,) = select(records, RULES[ORACLE]).values()
    assert (chosen.step, chosen.validation, chosen.test) == (7, 0.1, 0.2)


def test_ties_go_to_the_earliest_step_and_the_highest_seed():
    records = [record([0], step, hparams=seed) for seed in (4, 0) for step in (3, 8)]
    for title, step in ((IID, 3), (ORACLE, 8)):
        (chosen,) = select(records, RULES[title]).values()
        assert (chosen.step, chosen.hparams_seed) == (step, 4)


def test_given_hyper_parameters_are_chosen_among():
    """Of the same hyper-parameter seed; the last step of one is not the other's."""
    records = []
    for given, step, level in (({"eta": 1}, 9, 0.4), ('{"eta": 0.1}', 5, 0.6)):
        made = record([0], step, accuracy=lambda n, p, level=level: level)
        records.append({**made, "args": {**made["args"], "hparams": given}})
    (chosen,) = select(records, RULES[ORACLE]).values()
    assert (chosen.step, chosen.test) == (5, 0.6)


def test_leave_one_out_needs_every_pair():
    singles = [record([target]) for target in range(ENVIRONMENTS)]
    pairs = [record(pair) for pair in itertools.combinations(range(ENVIRONMENTS), 2)]
    assert len(select(singles + pairs, RULES[LEAVE_ONE_OUT])) == ENVIRONMENTS
    found = select(singles + pairs[1:], RULES[LEAVE_ONE_OUT])
    assert {cell.target for cell in found} == {2, 3}
    assert select(singles, RULES[LEAVE_ONE_OUT]) == {}


def test_tables():
    def by_trial(trial):
        return lambda number, part: 0.5 + trial / 10 + (number == 3) / 100

    records = [
        record([target], trial=trial, algorithm=name, accuracy=by_trial(trial))
        for name in ("CETuning", "CoreTuning")
        for target in range(ENVIRONMENTS)
        for trial in (0, 1)
        if (name, target, trial) != ("CoreTuning", 2, 1)
    ]
    first, second, third = tables(records, NAMES).split("\n\n")
    assert first.splitlines()[0] == f"selected by {IID}"
    assert "--test_envs pairs" in second
    assert third.splitlines()[1:] == first.splitlines()[1:]
    header, *rows = first.splitlines()[1:]
    assert len({len(line) for line in (header, *rows)}) == 1
    assert "  3 a domain of a very long name" in header
    # 50 and 60, and a hundredth more on the last domain: mean ± standard error.
    assert rows[0].split() == ["CETuning", *["55.00", "±", "5.00"] * 3, "56.00", "±", "5.00",
                               "55.25", "±", "5.00"]  # fmt: skip
    # The mean over domains is of the only trial that has them all.
    assert rows[1].split() == ["CoreTuning", *["55.00", "±", "5.00"] * 2, "50.00",
                               "56.00", "±", "5.00", "50.25"]  # fmt: skip


def test_selection_as_json(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("CoreTuning/1/0/0")
    run.mkdir(parents=True)
    chosen = json.loads(json.dumps(selection([record([1], 5)])))
    assert chosen.keys() == RULES.keys()
    assert chosen[LEAVE_ONE_OUT] == []
    expected = {"dataset": "PACS", "algorithm": "CoreTuning", "target": 1, "trial_seed": 0,
                "validation": 0.5, "test": 0.5, "step": 5, "folder": str(run),
                "hparams_seed": 0}  # fmt: skip
    assert chosen[IID] == [{**expected, "model": None}]
    for name in ("best_iid.pkl", "model.pkl"):
        (run / name).touch()
    chosen = json.loads(json.dumps(selection([record([1], 5)])))
    assert [chosen[rule][0]["model"] for rule in (IID, ORACLE)] == [
        str(run / "best_iid.pkl"), str(run / "model.pkl"),
    ]  # fmt: skip
