"""Makes the report of a folder of DomainBed's runs, which no definition describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.errors import UserError
from core_tuning.selection import RULES, Record, select

from ..claims import ACCURACY
from ..expand import cells_of
from ..paper import paper_cells
from ..reading import ROW, read_definition
from .frames import Line, make_part, runs_frame
from .model import PartReport, Report
from .runs import RESULTS, count_lines, read_records

# Definitions that know the names of domains, and what the paper prints for our algorithms.
_DEFINITIONS = ("table08", "table13", "emoji")
_TARGET = "target"
_EMBEDDED = "EmojiDomains"


class _Runs(NamedTuple):
    """What is in a folder of DomainBed's runs.

    Attributes:
        finished: data set -> method -> records of its finished runs.
        trials: (data set, method, target) -> trial seeds of all runs, finished or not.
        domains: data set -> number of its domains.
        damaged: file -> lines that were skipped.
        counts: number of finished and of all runs.
    """

    finished: dict[str, dict[str, list[Record]]]
    trials: dict[tuple[str, str, int], set[int]]
    domains: dict[str, int]
    damaged: dict[str, int]
    counts: tuple[int, int]

    def datasets(self) -> list[str]:
        """Data sets with runs to show: first those with finished ones."""
        begun = (dataset for dataset, _, _ in self.trials)
        return list(dict.fromkeys([*self.finished, *begun]))


class _Paper(NamedTuple):
    """Names of targets by (data set, number), and the paper's numbers by (algorithm, *target)."""

    names: dict[tuple[str, int], str]
    values: dict[tuple[str, str, int], float]


def read_domainbed(path: Path, command: str, warn: Callable[[str], None] | None = None) -> Report:
    """Collect the finished runs in a folder, by each of DomainBed's rules of model selection.

    Args:
        path: its sub-folders hold results.jsonl, and `done` where they are finished, as
            DomainBed's sweep and `core-tuning dg` leave them; or it is such a run itself.
        command: that asks for the report, as it is to be shown.
        warn: is told of damaged files, which the notes name too.

    Raises:
        UserError: there is no such folder, or no finished run in it.
    """
    runs = _read(path)
    if not runs.finished:
        done, total = runs.counts
        raise UserError(
            f"No run in {path} is finished and whole ({total} have a {RESULTS}, {done} of them a "
            "file 'done'): name the folder that DomainBed's sweep has as --output_dir."
        )
    damage = count_lines(runs.damaged)
    if damage and warn is not None:
        warn(damage)
    paper = _paper()
    parts = tuple(
        _part(dataset, runs.finished.get(dataset, {}), runs, paper) for dataset in runs.datasets()
    )
    return Report(
        name=path.resolve().name,
        title=f"DomainBed's runs in {path.resolve().name}",
        command=command,
        parts=parts,
        findings=(),
        notes=tuple(_notes(runs, parts, damage)),
        environment={},
    )


def _read(path: Path) -> _Runs:
    if not path.is_dir():
        raise UserError(f"--domainbed is {path}, which is no folder: name one of DomainBed's runs.")
    folders = [path, *sorted(each for each in path.iterdir() if each.is_dir())]
    folders = [each for each in folders if (each / RESULTS).is_file()]
    finished: dict[str, dict[str, list[Record]]] = {}
    trials: dict[tuple[str, str, int], set[int]] = {}
    damaged, domains, done = {}, {}, 0
    for folder in folders:
        records, skipped = read_records(folder / RESULTS)
        if skipped:
            damaged[str((folder / RESULTS).relative_to(path))] = skipped
        is_done = (folder / "done").exists()
        done += is_done
        for record in records:
            args, method = record["args"], method_of(record)
            for target in args["test_envs"] if len(args["test_envs"]) == 1 else ():
                key = (args["dataset"], method, target)
                trials.setdefault(key, set()).add(args["trial_seed"])
            domains[args["dataset"]] = sum(name.endswith("_out_acc") for name in record)
        if is_done and records:
            first = records[0]
            methods = finished.setdefault(first["args"]["dataset"], {})
            methods.setdefault(method_of(first), []).extend(records)
    return _Runs(finished, trials, domains, damaged, (done, len(folders)))


def method_of(record: Mapping[str, Any]) -> str:
    """A run's algorithm, and the variant of its loss where it is not the default."""
    variant = record["hparams"].get("variant", "equations")
    name = record["args"]["algorithm"]
    return name if variant == "equations" else f"{name}, {variant}"


def _part(
    dataset: str, methods: Mapping[str, list[Record]], runs: _Runs, paper: _Paper
) -> PartReport:
    names = {
        target: paper.names.get((dataset, target), f"domain {target}")
        for target in range(runs.domains[dataset])
    }
    lines, values = [], []
    # A method whose runs all are unfinished is shown as missing.
    known = [method for each, method, _ in runs.trials if each == dataset]
    for method in sorted(dict.fromkeys([*methods, *known]), key=_order):
        for target, name in names.items():
            trials = runs.trials.get((dataset, method, target), set())
            value = paper.values.get((method, dataset, target))
            lines += [Line((method, name), rule, ACCURACY, len(trials), value) for rule in RULES]
        for rule_name, rule in RULES.items():
            for cell, chosen in select(methods.get(method, []), rule).items():
                values.append(
                    {
                        "id": Path(chosen.folder).name,
                        "seed": cell.trial_seed,
                        "row": method,
                        _TARGET: names[cell.target],
                        "measure": rule_name,
                        "quantity": ACCURACY,
                        "value": 100 * chosen.test,
                    }
                )
    return make_part(dataset, "domainbed", [_TARGET], lines, runs_frame(values, [_TARGET]))


def _order(method: str) -> tuple[int, str]:
    """Ours first, in the paper's order; then the others by name."""
    ours = ("CETuning", "CECon", "CoreTuning")
    name = method.partition(",")[0]
    return (ours.index(name) if name in ours else len(ours), method)


def _paper() -> _Paper:
    """What the shipped definitions know of DomainBed's data sets."""
    names: dict[tuple[str, int], str] = {}
    values: dict[tuple[str, str, int], float] = {}
    for sweep in _DEFINITIONS:
        for part in read_definition(sweep).parts:
            if part.command != "dg":
                continue
            targets = {}
            for choice in part.axes[_TARGET]:
                dataset = choice.options.get("dataset", _EMBEDDED)
                target = (dataset, int(choice.options["test_envs"]))
                targets[choice.name] = target
                names[target] = choice.name.removeprefix(f"{dataset}, ")
            rows = {choice.name: choice.options["algorithm"] for choice in part.axes[ROW]}
            for claim in paper_cells(part, cells_of(part, {}), sweep):
                cell = claim["cell"]
                (value,) = claim["values"].values()
                values[(rows[cell[ROW]], *targets[cell[_TARGET]])] = value
    return _Paper(names, values)


def _notes(runs: _Runs, parts: tuple[PartReport, ...], damage: str) -> list[str]:
    done, total = runs.counts
    left_out = "" if done == total else "; the others are left out"
    notes = [f"{done} of the {total} runs with a {RESULTS} are finished{left_out}."]
    if damage:
        notes.append(damage)
    notes.append(
        "Of runs with several hyper-parameter seeds, each rule chooses one for each trial; the "
        "leave-one-domain-out rule needs runs that leave out two domains, and is missing without."
    )
    notes.append(
        "DomainBed's own tables print smaller errors, as they divide squared deviations by the "
        "number of trials and not by one less."
    )
    if any(part.cells["paper"].notna().any() for part in parts):
        notes.append(
            "The paper's numbers (Table 8, for Office-Home Table 13) are of a ResNet-50 "
            "pre-trained by MoCo-v2; it does not say by which rule it selects models, and its "
            "number stands beside each."
        )
    return notes
