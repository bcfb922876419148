"""DomainBed's three rules of model selection, on the lines of results.jsonl.

Each chooses hyper-parameters and a step by a validation accuracy, and reports the accuracy on the
in-split of the target domain.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Record = Mapping[str, Any]


class Selected(NamedTuple):
    """What a rule chose for one algorithm, target and trial.

    Attributes:
        validation: accuracy in [0, 1] that the choice was made by.
        test: accuracy in [0, 1] on the target's in-split.
        step: at which the model stood.
        folder: of the run.
        hparams_seed: of the run.
    """

    validation: float
    test: float
    step: int
    folder: str
    hparams_seed: int


class Cell(NamedTuple):
    """One algorithm on one target in one trial."""

    dataset: str
    algorithm: str
    target: int
    trial_seed: int


def source_accuracy(record: Record) -> float:
    """Mean accuracy in [0, 1] on the out-splits of the domains that were trained on."""
    targets = record["args"]["test_envs"]
    values = [
        record[f"env{number}_out_acc"] for number in _environments(record) if number not in targets
    ]
    return sum(values) / len(values)


def _environments(record: Record) -> Iterable[int]:
    number = 0
    while f"env{number}_out_acc" in record:
        yield number
        number += 1


def _selected(record: Record, validation: float, target: int) -> Selected:
    args = record["args"]
    return Selected(
        validation,
        record[f"env{target}_in_acc"],
        record["step"],
        args["output_dir"],
        args["hparams_seed"],
    )


def training_domain_validation(records: Sequence[Record], target: int) -> Selected | None:
    """The step of best mean accuracy on the source domains' out-splits."""
    choices = [
        _selected(record, source_accuracy(record), target)
        for record in records
        if record["args"]["test_envs"] == [target]
    ]
    return max(choices, key=lambda choice: choice.validation, default=None)


def leave_one_domain_out(records: Sequence[Record], target: int) -> Selected | None:
    """The step of best mean accuracy on each source domain, left out together with the target.

    Needs, beside the target's run, one run with each source domain as a second target; None
    where one is missing.
    """
    by_step: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_step[record["step"]].append(record)
    choices = []
    for _, at_step in sorted(by_step.items()):
        alone = [r for r in at_step if r["args"]["test_envs"] == [target]]
        if len(alone) != 1:
            continue
        left_out = {}
        for record in at_step:
            others = set(record["args"]["test_envs"]) - {target}
            if len(record["args"]["test_envs"]) == 2 and len(others) == 1:
                (other,) = others
                left_out[other] = record[f"env{other}_in_acc"]
        sources = set(_environments(alone[0])) - {target}
        if left_out.keys() == sources:
            choices.append(_selected(alone[0], sum(left_out.values()) / len(sources), target))
    return max(choices, key=lambda choice: choice.validation, default=None)


def test_domain_validation(records: Sequence[Record], target: int) -> Selected | None:
    """The last step, by the target's own out-split (oracle): for reference, not for use."""
    alone = [record for record in records if record["args"]["test_envs"] == [target]]
    if not alone:
        return None
    last = max(alone, key=lambda record: record["step"])
    return _selected(last, last[f"env{target}_out_acc"], target)


Rule = Callable[[Sequence[Record], int], Selected | None]
# Names as DomainBed's collect_results prints them.
RULES: dict[str, Rule] = {
    "training-domain validation set": training_domain_validation,
    "leave-one-domain-out cross-validation": leave_one_domain_out,
    "test-domain validation set (oracle)": test_domain_validation,
}


def select(records: Sequence[Record], rule: Rule) -> dict[Cell, Selected]:
    """Apply a rule to the records of many runs: the best hyper-parameters and step of each cell.

    Runs of one hyper-parameter seed that were given other --hparams count as other
    hyper-parameters.
    """
    groups: dict[Cell, dict[tuple[int, str], list[Record]]]
    groups = defaultdict(lambda: defaultdict(list))
    for record in records:
        args = record["args"]
        for target in args["test_envs"]:
            cell = Cell(args["dataset"], args["algorithm"], target, args["trial_seed"])
            given = json.dumps(args.get("hparams"), sort_keys=True)
            groups[cell][args["hparams_seed"], given].append(record)
    chosen = {}
    for cell, by_hparams in groups.items():
        # Of equally good hyper-parameters DomainBed takes the highest seed; max takes the first.
        found = [rule(by_hparams[key], cell.target) for key in sorted(by_hparams, reverse=True)]
        best = max((f for f in found if f), key=lambda choice: choice.validation, default=None)
        if best is not None:
            chosen[cell] = best
    return chosen
