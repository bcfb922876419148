"""DomainBed's three rules of model selection, on the lines of results.jsonl.

Each chooses hyper-parameters and a step by a validation accuracy, and reports the accuracy on the
in-split of the target domain.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, takewhile
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
    sources = _environments(record) - set(record["args"]["test_envs"])
    return sum(record[f"env{number}_out_acc"] for number in sorted(sources)) / len(sources)


def _environments(record: Record) -> set[int]:
    return set(takewhile(lambda number: f"env{number}_out_acc" in record, count()))


def _alone(records: Iterable[Record], target: int) -> list[Record]:
    """Those of runs that leave out the target and no other domain."""
    return [record for record in records if record["args"]["test_envs"] == [target]]


def _selected(record: Record, validation: float, target: int) -> Selected:
    args, test = record["args"], record[f"env{target}_in_acc"]
    return Selected(validation, test, record["step"], args["output_dir"], args["hparams_seed"])


def _best(choices: Iterable[Selected]) -> Selected | None:
    return max(choices, key=lambda choice: choice.validation, default=None)


def training_domain_validation(records: Sequence[Record], target: int) -> Selected | None:
    """The step of best mean accuracy on the source domains' out-splits."""
    alone = _alone(records, target)
    return _best(_selected(record, source_accuracy(record), target) for record in alone)


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
        alone = _alone(at_step, target)
        if len(alone) != 1:
            continue
        left_out = {}
        for record in at_step:
            others = set(record["args"]["test_envs"]) - {target}
            if len(record["args"]["test_envs"]) == 2 and len(others) == 1:
                (other,) = others
                left_out[other] = record[f"env{other}_in_acc"]
        if left_out.keys() == _environments(alone[0]) - {target}:
            mean = sum(left_out.values()) / len(left_out)
            choices.append(_selected(alone[0], mean, target))
    return _best(choices)


def test_domain_validation(records: Sequence[Record], target: int) -> Selected | None:
    """The last step, by the target's own out-split (oracle): for reference, not for use."""
    last = max(_alone(records, target), key=lambda record: record["step"], default=None)
    return None if last is None else _selected(last, last[f"env{target}_out_acc"], target)


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
        best = _best(choice for choice in found if choice is not None)
        if best is not None:
            chosen[cell] = best
    return chosen
