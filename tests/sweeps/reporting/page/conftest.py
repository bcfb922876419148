"""Reports that are made up, the figures that are saved, and pages in a browser."""

from __future__ import annotations

import itertools
import types

import pandas as pd
import pytest

from core_tuning.sweeps.reporting.results import Finding, Line, Report, make_part


@pytest.fixture(autouse=True)
def errors_for_warnings(no_warnings):
    """Every figure and page is drawn without a warning."""


def part(values, *, name="", command="finetune", axes=None, rows=("",), paper=None,
         measures=("",), quantities=("accuracy",), seeds=3):  # fmt: skip
    """A part whose cells are all combinations.

    `values` and `paper` give, by (row, *axes' values, measure, quantity), the runs' numbers and
    the paper's; what they lack is missing.
    """
    axes = axes or {}
    keys = list(itertools.product(rows, *axes.values(), measures, quantities))
    lines = [Line(tuple(key[:-2]), key[-2], key[-1], seeds, (paper or {}).get(key)) for key in keys]
    runs = [
        (f"id-{'-'.join(key[:-2])}-{seed}", seed, *key, value)
        for key in keys
        for seed, value in enumerate(values.get(key, []))
    ]
    columns = ["id", "seed", "row", *axes, "measure", "quantity", "value"]
    return make_part(name, command, tuple(axes), lines, pd.DataFrame(runs, columns=columns))


def report(*parts, **changes):
    made = Report(
        name="mine", title="A title", command="core-tuning sweep report mine", parts=parts,
        findings=(), notes=("A note.",), environment={"torch": "2.9.0"},
    )  # fmt: skip
    return made._replace(**changes)


@pytest.fixture(scope="session")
def made_up():
    """Makers of reports, of their parts and of findings."""
    return types.SimpleNamespace(part=part, report=report, finding=Finding)


def accuracies(rows, columns, *, measure="", quantity="accuracy", start=70.0):
    """Three runs of every cell, other numbers in each."""
    return {
        (row, column, measure, quantity): [start + 3 * i + j + k / 4 for k in range(3)]
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
    }


@pytest.fixture(scope="session")
def every_kind():
    """A report with a part for every kind of figure, and one without anything finished."""
    methods = ("CE", "Core-tuning")
    sets = ("pets", "cars", "dtd")
    table = accuracies(methods, sets)
    del table["CE", "dtd", "", "accuracy"]
    table["CE", "cars", "", "accuracy"] = [61.5]
    grid = accuracies(("0.1", "1"), ("0.1", "1", "10"))
    grid = {("", *key): values for key, values in grid.items() if key[:2] != ("1", "10")}
    taus = ("0.01", "0.07", "0.1", "1")
    budgets = ("l2 0.5", "l2 1.5", "linf 4/255")
    attacks = ("clean", "PGD-10", "AutoAttack")
    robust = {
        (row, budget, attack): [90.0 - 20 * i - 5 * j + k + seed for seed in range(3)]
        for i, attack in enumerate(attacks)
        for j, budget in enumerate(budgets)
        for k, row in enumerate(("AT-CE", "AT-Core-tuning", "CE"))
    }
    adversarial = {(row, budget, *rest): v for (row, budget, *rest), v in robust.items()}
    rule = "training-domain validation set"
    return report(
        part(table, name="sets", rows=methods, axes={"dataset": sets},
             paper={("CE", "pets", "", "accuracy"): 72.25}),
        part({("a", "", "accuracy"): [70, 71, 72]}, name="names", rows=("a", "b and more")),
        part(accuracies(methods, ("art", "photo"), measure=rule), name="domains", command="dg",
             rows=methods, axes={"target": ("art", "photo")}, measures=(rule,)),
        part(grid, name="grid", axes={"eta": ("0.1", "1"), "alpha": ("0.1", "1", "10")}),
        part({("", tau, "", "accuracy"): [60 + i, 61 + i] for i, tau in enumerate(taus)},
             name="temperatures", axes={"temperature": taus}, seeds=2),
        part(adversarial, name="adversarial", command="robust", rows=("AT-CE",
             "AT-Core-tuning"), measures=budgets, quantities=attacks),
        part(adversarial, name="plain", command="robust", rows=("CE",), measures=budgets,
             quantities=attacks),
        part({}, name="nothing", rows=methods, axes={"dataset": sets}),
        findings=(Finding("A claim (Table 2).", "holds here", "CE minus CE: +1.00 points."),),
    )  # fmt: skip
