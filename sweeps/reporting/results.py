"""Reads what is finished of a sweep into frames: a line a run, and a line a cell."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from core_tuning.errors import UserError
from core_tuning.report.summary import interval_factor
from core_tuning.selection import RULES, Record, leave_one_domain_out, training_domain_validation

from ..claims import ACCURACY, ATTACKS, CLEAN, DEFAULT_ATTACKS, budget_name, measures_of, read_eps
from ..expand import cells_of
from ..folder import SweepFolder
from ..paper import paper_cells
from ..plan import ROW, Part, Run, cell_names

MEASURE = "measure"
RESULTS = "results.jsonl"
# Chooses among the values of a grid, and no table shows it: a run has one at most.
VALIDATION = "validation accuracy"
LEAVE_ONE_OUT = next(name for name, rule in RULES.items() if rule is leave_one_domain_out)
# Commands whose runs leave a domain out, and are read by DomainBed's rules.
DOMAINS = ("dg", "domainbed")
_PAPER_ATTACK = ATTACKS["pgd10"]
_CELL = (MEASURE, "quantity")
_NUMBERS = ("mean", "standard_error", "interval", "n", "expected", "paper",
            "paper_standard_error", "difference")  # fmt: skip
# Of the columns of the CSV files.
_RESERVED = ("part", "command", "id", "seed", ROW, "value", *_CELL, *_NUMBERS)
# What reading a file that is not as its command writes it can raise.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
_ARGUMENTS = {"dataset": str, "algorithm": str, "output_dir": str, "trial_seed": int,
              "hparams_seed": int}  # fmt: skip


class PartReport(NamedTuple):
    """What a part of a sweep has shown so far.

    Accuracies are in percent, spreads and differences in percentage points.

    Attributes:
        name: of the part; "" for the only one.
        command: "finetune", "dg", "domainbed" or "robust".
        axes: (a,) names of the axes besides "row", in the definition's order; each is a column of
            the frames.
        values: one line for each finished run, measure and quantity. Columns: id, seed, row, each
            axis, measure, quantity, value.

            - row: the row's name; "" if the part has axes only.
            - measure: of robust the budget, such as "l2 0.5" or "linf 4/255"; of dg and domainbed
              the rule of model selection; of finetune "".
            - quantity: of finetune "accuracy" (test, top-1); of dg and domainbed "accuracy" (of the
              target domain); of robust "clean", and the attacks, such as "PGD-10".
        cells: one line for each cell, measure and quantity, finished or not, in the definition's
            order. Columns: row, each axis, measure, quantity, mean, standard_error, interval
            (half-width of the 95 % interval, Student-t), n (finished runs), expected (runs in the
            sweep's folder), paper, paper_standard_error, difference (mean less paper). NaN where
            unknown; n is 0 where nothing is finished.
    """

    name: str
    command: str
    axes: tuple[str, ...]
    values: pd.DataFrame
    cells: pd.DataFrame


class Finding(NamedTuple):
    """A claim, judged by paired differences over the seeds.

    Attributes:
        says: the claim, a sentence, with the table of the paper that it comes from.
        verdict: "holds here", "does not hold here", "not shown here" or "not measured".
        evidence: a sentence with the mean difference, its 95% interval and the number of pairs.
    """

    says: str
    verdict: str
    evidence: str


class Report(NamedTuple):
    """A report of a sweep, or of a folder of DomainBed's runs.

    Attributes:
        name: of the sweep.
        title: a line about it.
        command: that made this report.
        parts: (p,) in the definition's order.
        findings: (f,) in the definition's order.
        notes: sentences: what is missing, failed, damaged and left out.
        environment: what the runs were made with, such as {"torch": "2.9.0"}.
    """

    name: str
    title: str
    command: str
    parts: tuple[PartReport, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    environment: dict[str, str]


class Line(NamedTuple):
    """A line of a cells frame before anything is known of it.

    Attributes:
        key: row and value of each axis.
        measure, quantity: see `PartReport`.
        expected: runs that it would be the mean of.
        paper: what the paper prints; None if it prints nothing.
        paper_standard_error: that it prints.
    """

    key: tuple[str, ...]
    measure: str
    quantity: str
    expected: int
    paper: float | None = None
    paper_standard_error: float | None = None


class Measured(NamedTuple):
    """A number of a run, in percent; measure and quantity as in `PartReport`."""

    id: str
    measure: str
    quantity: str
    value: float


class Reading(NamedTuple):
    """What was read of some runs.

    Attributes:
        values: of those whose files are whole enough.
        damaged: file below the sweep's folder -> number of lines that were skipped.
    """

    values: list[Measured]
    damaged: dict[str, int]


def make_part(
    name: str,
    command: str,
    axes: Sequence[str],
    lines: Iterable[Line],
    values: pd.DataFrame,
) -> PartReport:
    """Summarise the values of a part's runs over seeds.

    Args:
        name, command, axes: see `PartReport`.
        lines: of the cells, in the order in which they are shown.
        values: the frame of this name in `PartReport`.
    """
    keys = [ROW, *axes, *_CELL]
    values = values.astype({"value": float})
    grouped = values.groupby(keys, sort=False)["value"]
    found = pd.DataFrame(
        {"mean": grouped.mean(), "standard_error": grouped.sem(), "n": grouped.size()}
    ).reset_index()
    cells = pd.DataFrame(
        [(*line.key, *line[1:]) for line in lines],
        columns=[*keys, "expected", "paper", "paper_standard_error"],
    ).astype({"expected": int, "paper": float, "paper_standard_error": float})
    cells = cells.merge(found, on=keys, how="left")
    cells = cells.astype({"mean": float, "standard_error": float})
    cells["n"] = cells["n"].fillna(0).astype(int)
    cells["interval"] = cells["standard_error"] * cells["n"].map(interval_factor)
    cells["difference"] = cells["mean"] - cells["paper"]
    return PartReport(name, command, tuple(axes), values, cells[[*keys, *_NUMBERS]])


def over_axes(part: PartReport, row: str, cells: pd.DataFrame) -> pd.Series:
    """A row's mean over its cells in percent, by seed, of the seeds that have finished them all.

    Args:
        part: whose values are taken.
        row: its name.
        cells: the lines of `part.cells` that count.
    """
    keys = [*part.axes, *_CELL]
    own = cells[cells[ROW] == row].set_index(keys).index
    if not len(own):
        return pd.Series(dtype=float)
    table = part.values[part.values[ROW] == row].pivot(index="seed", columns=keys, values="value")
    return table.reindex(columns=own).dropna().mean(axis=1)


def read_part(part: Part, runs: Sequence[Run], reading: Reading, folder: SweepFolder) -> PartReport:
    """Put what was read of a part's runs beside the paper's numbers.

    Raises:
        UserError: an axis has the name of a column of the report.
    """
    axes = [axis for axis in part.axes if axis != ROW]
    for axis in axes:
        if axis in _RESERVED:
            raise UserError(
                f"The axis '{axis}' of {folder.name} has the name of a column of the report: give "
                "it another in the definition."
            )
    keys = [ROW, *axes]
    # Runs that leave out two domains only serve leave-one-out selection.
    single = [run for run in runs if part.command not in DOMAINS or single_target(run) is not None]
    named = pd.DataFrame(
        [(run.id, run.seed, *_key(run.cell, axes)) for run in single], columns=["id", "seed", *keys]
    )
    measured = pd.DataFrame(reading.values, columns=Measured._fields)
    values = named.merge(measured[measured["quantity"] != VALIDATION], on="id")
    by_key: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in single:
        by_key[_key(run.cell, axes)].append(run)
    # What was measured beyond what the definition asks for is shown as well.
    found: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for *key, measure, quantity in values[[*keys, *_CELL]].drop_duplicates().values.tolist():
        found[tuple(key)].append((measure, quantity))
    cells = cells_of(part, {})
    order = {_key(cell_names(part, cell), axes): number for number, cell in enumerate(cells)}
    papers: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for paper in paper_cells(part, cells, folder.name):
        papers[_key(paper["cell"], axes)].append(paper)
    lines = []
    for key in sorted(by_key, key=lambda key: order.get(key, len(order))):
        asked = _asked(part, by_key[key][0])
        measures = {measure for measure, _ in asked}
        for measure, quantity in dict.fromkeys([*asked, *found[key]]):
            # A number of the paper's without a budget is of the one that the run is made for.
            known = papers[key] if measure in measures else []
            printed = _printed(part, known, measure, quantity)
            lines.append(Line(key, measure, quantity, len(by_key[key]), *printed))
    return make_part(part.name, part.command, axes, lines, values)


def _key(cell: Mapping[str, str], axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.get(axis, "") for axis in (ROW, *axes))


def _asked(part: Part, run: Run) -> list[tuple[str, str]]:
    """Measures and quantities that a run of the part is made for."""
    if part.command != "robust":
        return [(measure, ACCURACY) for measure in measures_of(part)]
    quantities = (CLEAN, *(ATTACKS.get(name, name) for name in attacks_of(run)))
    return [(budget_name(*budget), each) for budget in budgets_of(run) for each in quantities]


def _printed(
    part: Part, papers: Sequence[dict[str, Any]], measure: str, quantity: str
) -> tuple[float | None, float | None]:
    """The paper's number and standard error of a line; it attacks by PGD-10."""
    for paper in papers:
        own = paper["measure"]
        if own is not None and budget_name(own["norm"], own["eps"]) != measure:
            continue
        for column, value in paper["values"].items():
            meant = ACCURACY
            if part.command == "robust":
                meant = CLEAN if column == CLEAN else _PAPER_ATTACK
            if meant == quantity:
                return value, paper["stderr"]
    return None, None


def read_runs(folder: SweepFolder, command: str, ids: Sequence[str]) -> Reading:
    """Read finished runs of a command.

    A line that its command would not have written is skipped and counted.
    """
    if command in DOMAINS:
        return _read_domains(folder, ids)
    read = {"finetune": _finetune, "robust": _robust}[command]
    values: list[Measured] = []
    damaged: dict[str, int] = {}
    for id in ids:
        run = folder.runs[id]
        name = f"runs/{id}/{run.done}"
        try:
            values += read(run, json.loads((folder.path / name).read_bytes()))
        except _DAMAGE:
            # The file is one value, whatever its lines.
            damaged[name] = 1
    return Reading(values, damaged)


def _finetune(run: Run, result: Any) -> list[Measured]:
    values = [Measured(run.id, "", ACCURACY, _percent(result["test"]["top1"]))]
    # A run may have gone without validation images.
    if result.get("validation") is not None:
        values.append(Measured(run.id, "", VALIDATION, _percent(result["validation"]["top1"])))
    return values


def _robust(run: Run, report: Any) -> list[Measured]:
    asked = budgets_of(run)
    clean = _percent(report["clean"]["percent"])
    values = {}
    for row in report["rows"]:
        # The evaluation spells 0.50 and 128/255 its way.
        spelled = [
            eps for norm, eps in asked
            if norm == row["norm"] and math.isclose(read_eps(eps), row["eps"], rel_tol=1e-6)
        ]  # fmt: skip
        budget = budget_name(row["norm"], spelled[0] if spelled else row["eps_text"])
        values[budget, CLEAN] = clean
        values[budget, ATTACKS.get(row["attack"], row["title"])] = _percent(row["robust"])
    found = [Measured(run.id, *key, value) for key, value in values.items()]
    if not found:
        raise ValueError("no rows")
    # Test images are not looked at where validation is to choose.
    last = [value for (_, quantity), value in values.items() if quantity == last_attack(run)]
    if is_on_validation(run) and last:
        found.append(Measured(run.id, "", VALIDATION, sum(last) / len(last)))
    return found


def _percent(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 100:
        raise ValueError(f"{value!r} is not a percentage")
    return number


def budgets_of(run: Run) -> list[tuple[str, str]]:
    """Norm and eps, as the definition spells it, of each budget that a run of robust is for."""
    options = run.stages[-1].options
    return [(norm, eps) for norm in options["norm"] for eps in options.get(norm, ())]


def attacks_of(run: Run) -> Sequence[str]:
    """The attacks that a run of robust asks for, in its evaluation's words."""
    return run.stages[-1].options.get("attacks") or DEFAULT_ATTACKS


def last_attack(run: Run) -> str:
    """The quantity that a grid of runs of robust is chosen by, on validation images."""
    name = attacks_of(run)[-1]
    return ATTACKS.get(name, name)


def is_on_validation(run: Run) -> bool:
    """Whether a run of robust is measured on validation images."""
    return bool(run.stages[-1].options.get("split") == "validation")


def single_target(run: Run) -> int | None:
    """The domain that a run of dg or domainbed tests on; None if it leaves out several."""
    given = run.stages[0].options.get("test_envs", ())
    targets = given if isinstance(given, list) else [given]
    return int(targets[0]) if len(targets) == 1 and str(targets[0]).isdigit() else None


def read_records(path: Path) -> tuple[list[Record], int]:
    """Read a results.jsonl of `core-tuning dg` or of DomainBed's train.

    Returns:
        The lines, each with "step", "args", "hparams" and the accuracies "env0_in_acc" and so on
        in [0, 1] alone; and the number of those that were skipped, as they are no such lines.
    """
    records, damaged = [], 0
    for line in path.read_bytes().splitlines():
        try:
            records.append(_checked(json.loads(line.decode())))
        except _DAMAGE:
            damaged += 1
    return records, damaged


def _checked(line: Any) -> Record:
    args = line["args"]
    hparams = line.get("hparams", {})
    if not isinstance(hparams, dict):
        raise ValueError(f"the hyper-parameters are {hparams!r}")
    kept = {"step": int(line["step"]), "args": args, "hparams": hparams}
    number = 0
    while f"env{number}_out_acc" in line:
        for name in (f"env{number}_in_acc", f"env{number}_out_acc"):
            _percent(100 * line[name])
            kept[name] = line[name]
        number += 1
    targets = args["test_envs"]
    if not targets or not all(type(each) is int and 0 <= each < number for each in targets):
        raise ValueError(f"no accuracy of the targets {targets!r}")
    for key, kind in _ARGUMENTS.items():
        if not isinstance(args[key], kind):
            raise ValueError(f"{key} is {args[key]!r}")
    return kept


def _read_domains(folder: SweepFolder, ids: Sequence[str]) -> Reading:
    damaged: dict[str, int] = {}

    def read(id: str) -> list[Record]:
        name = f"runs/{id}/{RESULTS}"
        path = folder.path / name
        records, skipped = read_records(path) if path.exists() else ([], 1)
        # A file that is empty is damaged too.
        skipped = skipped if records else max(skipped, 1)
        if skipped:
            damaged[name] = skipped
        return records

    targets = {id: single_target(folder.runs[id]) for id in ids}
    # Many records at once only where runs are needed beside each other: by the leave-one-out
    # rule, those that differ by their targets alone.
    kept = {id: read(id) for id in ids} if None in targets.values() else {}
    pools: dict[str, list[Record]] = defaultdict(list)
    for id, records in kept.items():
        pools[_apart_from_targets(folder.runs[id])] += records
    values: list[Measured] = []
    for id, target in targets.items():
        if target is not None:
            own = kept[id] if kept else read(id)
            pool = pools[_apart_from_targets(folder.runs[id])] if kept else []
            values += _selected(id, own, pool, target)
    return Reading(values, damaged)


def _selected(
    id: str, own: Sequence[Record], pool: Sequence[Record], target: int
) -> Iterator[Measured]:
    """What each rule reports of a run; leave-one-out needs the records of others too."""
    for name, rule in RULES.items():
        records = pool if name == LEAVE_ONE_OUT else own
        chosen = rule(records, target) if records else None
        if chosen is not None:
            yield Measured(id, name, ACCURACY, 100 * chosen.test)
            if rule is training_domain_validation:
                # The others choose by the target, or by runs that a sweep may lack.
                yield Measured(id, name, VALIDATION, 100 * chosen.validation)


def _apart_from_targets(run: Run) -> str:
    return json.dumps([run.seed, {**run.stages[0].options, "test_envs": None}], sort_keys=True)


def count_lines(damaged: Mapping[str, int], shown: int = 5) -> list[str]:
    """Say how many lines were skipped and in which files; nothing if none were."""
    if not damaged:
        return []
    total = sum(damaged.values())
    names = [name if lines == 1 else f"{name} ({lines} lines)" for name, lines in damaged.items()]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    lines = "1 damaged line was" if total == 1 else f"{total} damaged lines were"
    return [f"{lines} skipped: {', '.join(names[:shown])}{more}."]
