"""What the finished runs of a part of a sweep measured, out of the files that they left."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.selection import RULES, Record, leave_one_domain_out, training_domain_validation

from ..claims import ACCURACY, ATTACKS, CLEAN, DEFAULT_ATTACKS, budget_name, read_eps
from ..definition import Run
from ..folder import SweepFolder

RESULTS = "results.jsonl"
# Chooses among the values of a grid; no table shows it.
VALIDATION = "validation accuracy"
LEAVE_ONE_OUT = next(name for name, rule in RULES.items() if rule is leave_one_domain_out)
# What reading a file that is not as its command writes it can raise.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
_TARGETS = ("--test-envs", "--test_envs")
_ARGUMENTS = {"dataset": str, "algorithm": str, "output_dir": str, "trial_seed": int,
              "hparams_seed": int}  # fmt: skip


class Measured(NamedTuple):
    """A number of a run.

    Attributes:
        id: of the run.
        measure, quantity: see `model.PartReport`.
        value: in percent.
    """

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


def read_runs(folder: SweepFolder, command: str, ids: Sequence[str]) -> Reading:
    """Read finished runs of a command, one of `arguments.COMMANDS`.

    A line that its command would not have written is skipped and counted.
    """
    if command in ("dg", "domainbed"):
        return _read_domains(folder, ids)
    read = {"finetune": _finetune, "robust": _robust}[command]
    values: list[Measured] = []
    damaged: dict[str, int] = {}
    for id in ids:
        name = f"runs/{id}/{folder.runs[id].done}"
        found = _read_whole(folder.path / name, read, folder.runs[id])
        if not found:
            # The file is one value, whatever its lines.
            damaged[name] = 1
        else:
            values += found
    return Reading(values, damaged)


def _read_whole(
    path: Path, read: Callable[[Run, Any], list[Measured]], run: Run
) -> list[Measured] | None:
    try:
        return read(run, json.loads(path.read_bytes()))
    except _DAMAGE:
        return None


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
        budget = budget_name(row["norm"], _spelled(asked, row))
        values[budget, CLEAN] = clean
        values[budget, ATTACKS.get(row["attack"], row["title"])] = _percent(row["robust"])
    return [Measured(run.id, *key, value) for key, value in values.items()]


def budgets_of(run: Run) -> list[tuple[str, str]]:
    """Norm and eps, as the definition spells it, of each budget that a run of robust is for."""
    step = run.steps[-1]
    norms = words_after(step, "--norm")
    return [(norm, eps) for norm in norms for eps in words_after(step, f"--{norm}")]


def attacks_of(run: Run) -> Sequence[str]:
    """The attacks that a run of robust asks for, in its evaluation's words."""
    return words_after(run.steps[-1], "--attacks") or DEFAULT_ATTACKS


def is_on_validation(run: Run) -> bool:
    """Whether a run of robust is measured on validation images."""
    return words_after(run.steps[-1], "--split") == ["validation"]


def _spelled(asked: Iterable[tuple[str, str]], row: Mapping[str, Any]) -> str:
    """The eps of a row as the run asked for it: the evaluation spells 0.50 and 128/255 its way."""
    for norm, eps in asked:
        if norm == row["norm"] and math.isclose(read_eps(eps), row["eps"], rel_tol=1e-6):
            return eps
    return row["eps_text"]


def _percent(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 100:
        raise ValueError(f"{value!r} is no percentage")
    return number


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
    while (outside := f"env{number}_out_acc") in line:
        inside = f"env{number}_in_acc"
        _percent(100 * line[inside])
        _percent(100 * line[outside])
        kept[inside], kept[outside] = line[inside], line[outside]
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

    values: list[Measured] = []
    pairs = any(single_target(folder.runs[id]) is None for id in ids)
    # Many records at once only where runs are needed beside each other.
    kept = {id: read(id) for id in ids} if pairs else {}
    pools = _pools(folder, kept)
    for id in ids:
        target = single_target(folder.runs[id])
        if target is not None:
            own = kept[id] if pairs else read(id)
            values += _selected(id, own, pools.get(id), target)
    return Reading(values, damaged)


def _selected(
    id: str, own: Sequence[Record], pool: Sequence[Record] | None, target: int
) -> Iterable[Measured]:
    """What each rule reports of a run; leave-one-out needs the records of others too."""
    for name, rule in RULES.items():
        records = pool if name == LEAVE_ONE_OUT else own
        chosen = rule(records, target) if records else None
        if chosen is not None:
            yield Measured(id, name, ACCURACY, 100 * chosen.test)
            if rule is training_domain_validation:
                # The others choose by the target, or by runs that a sweep may lack.
                yield Measured(id, name, VALIDATION, 100 * chosen.validation)


def single_target(run: Run) -> int | None:
    """The domain that a run of dg or domainbed tests on; None if it leaves out several."""
    step = run.steps[0]
    targets = [words_after(step, flag) for flag in _TARGETS]
    (given,) = [each for each in targets if each] or [[]]
    return int(given[0]) if len(given) == 1 and given[0].isdigit() else None


def words_after(step: Sequence[str], flag: str) -> list[str]:
    """Values of an option of a step, none if it lacks it."""
    if flag not in step:
        return []
    start = step.index(flag) + 1
    end = next((i for i in range(start, len(step)) if step[i].startswith("--")), len(step))
    return list(step[start:end])


def _pools(folder: SweepFolder, records: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """Of each run the records of all whose command differs from its own in the targets alone."""
    pools: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    keys = {id: _apart_from_targets(folder.runs[id].steps[0]) for id in records}
    for id, key in keys.items():
        pools[key] += records[id]
    return {id: pools[key] for id, key in keys.items()}


def _apart_from_targets(step: Sequence[str]) -> tuple[str, ...]:
    (start,) = [step.index(flag) for flag in _TARGETS if flag in step] or [len(step)]
    given = words_after(step, step[start]) if start < len(step) else []
    return (*step[:start], *step[start + 1 + len(given) :])


def count_lines(damaged: Mapping[str, int], shown: int = 5) -> str:
    """Say how many lines were skipped and in which files; "" if none were."""
    if not damaged:
        return ""
    total = sum(damaged.values())
    names = list(damaged)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    lines = "1 damaged line was" if total == 1 else f"{total} damaged lines were"
    return f"{lines} skipped: {', '.join(_each(damaged, names[:shown]))}{more}."


def _each(damaged: Mapping[str, int], names: Iterable[str]) -> list[str]:
    return [name if damaged[name] == 1 else f"{name} ({damaged[name]} lines)" for name in names]
