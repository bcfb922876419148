"""Reads a folder of DomainBed's runs, which no definition describes, into a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from core_tuning.errors import UserError
from core_tuning.methods import METHODS
from core_tuning.selection import RULES, Record, select

from ..claims import ACCURACY
from ..expand import cells_of
from ..paper import paper_cells
from ..plan import ROW
from ..reading import read_definition
from .results import (
    MEASURE,
    RESULTS,
    Line,
    PartReport,
    Report,
    count_lines,
    make_part,
    read_records,
)

# Definitions that know the names of domains, and what the paper prints for our algorithms.
_DEFINITIONS = ("table08", "table13", "emoji")
_TARGET = "target"
_EMBEDDED = "EmojiDomains"
_OURS = tuple(method.domainbed for method in METHODS.values())
# A line of results.jsonl, and whether its run is finished.
_Found = tuple[Record, bool]


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
    if not path.is_dir():
        raise UserError(
            f"--domainbed is {path}, which is not a folder: name one of DomainBed's runs."
        )
    folders = [path, *sorted(each for each in path.iterdir() if each.is_dir())]
    folders = [each for each in folders if (each / RESULTS).is_file()]
    sets: dict[str, list[_Found]] = defaultdict(list)
    damaged, done = {}, 0
    for folder in folders:
        records, skipped = read_records(folder / RESULTS)
        if skipped:
            damaged[str((folder / RESULTS).relative_to(path))] = skipped
        is_done = (folder / "done").exists()
        done += is_done
        for record in records:
            sets[record["args"]["dataset"]].append((record, is_done))
    # First those with finished runs.
    names = sorted(sets, key=lambda name: not any(is_done for _, is_done in sets[name]))
    if not names or not any(is_done for _, is_done in sets[names[0]]):
        raise UserError(
            f"No run in {path} is finished and whole ({len(folders)} have a {RESULTS}, {done} of "
            "them a file 'done'): name the folder that DomainBed's sweep has as --output_dir."
        )
    damage = count_lines(damaged)
    if warn is not None:
        for sentence in damage:
            warn(sentence)
    paper = _paper()
    parts = tuple(_part(name, sets[name], paper) for name in names)
    left_out = "" if done == len(folders) else "; the others are left out"
    standing = f"{done} of the {len(folders)} runs with a {RESULTS} are finished{left_out}."
    return Report(
        name=path.resolve().name,
        title=f"DomainBed's runs in {path.resolve().name}",
        command=command,
        parts=parts,
        findings=(),
        notes=(standing, *damage, *_notes(parts)),
        environment={},
    )


def _part(dataset: str, found: Sequence[_Found], paper: _Paper) -> PartReport:
    finished: dict[str, list[Record]] = {}
    # A method whose runs all are unfinished is shown as missing.
    trials: dict[tuple[str, int], set[int]] = defaultdict(set)
    for record, is_done in found:
        args, method = record["args"], record["args"]["algorithm"]
        finished.setdefault(method, [])
        if is_done:
            finished[method].append(record)
        if len(args["test_envs"]) == 1:
            trials[method, args["test_envs"][0]].add(args["trial_seed"])
    domains = max(sum(name.endswith("_out_acc") for name in record) for record, _ in found)
    names = [paper.names.get((dataset, i), f"domain {i}") for i in range(domains)]
    lines, values = [], []
    for method, records in sorted(finished.items(), key=lambda each: _order(each[0])):
        for target, name in enumerate(names):
            expected = len(trials[method, target])
            value = paper.values.get((method, dataset, target))
            lines += [Line((method, name), rule, ACCURACY, expected, value) for rule in RULES]
        for rule_name, rule in RULES.items():
            for cell, chosen in select(records, rule).items():
                where = (Path(chosen.folder).name, cell.trial_seed, method, names[cell.target])
                values.append((*where, rule_name, ACCURACY, 100 * chosen.test))
    columns = ["id", "seed", ROW, _TARGET, MEASURE, "quantity", "value"]
    frame = pd.DataFrame(values, columns=columns)
    return make_part(dataset, "domainbed", [_TARGET], lines, frame)


def _order(method: str) -> tuple[int, str]:
    """Ours first, in the paper's order; then the others by name."""
    return (_OURS.index(method) if method in _OURS else len(_OURS), method)


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
            rows = {
                choice.name: METHODS[choice.options["method"]].domainbed
                for choice in part.axes[ROW]
            }
            for claim in paper_cells(part, cells_of(part, {}), sweep):
                cell = claim["cell"]
                (value,) = claim["values"].values()
                values[(rows[cell[ROW]], *targets[cell[_TARGET]])] = value
    return _Paper(names, values)


def _notes(parts: Sequence[PartReport]) -> list[str]:
    notes = [
        "Of runs with several hyper-parameter seeds, each rule chooses one for each trial; the "
        "leave-one-domain-out rule needs runs that leave out two domains, and is missing without.",
        "DomainBed's own tables print smaller errors, as they divide squared deviations by the "
        "number of trials and not by one less.",
    ]
    if any(part.cells["paper"].notna().any() for part in parts):
        notes.append(
            "The paper's numbers (Table 8, for Office-Home Table 13) are of a ResNet-50 "
            "pre-trained by MoCo-v2; it does not say by which rule it selects models, and its "
            "number stands beside each."
        )
    return notes
