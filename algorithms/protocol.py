"""The runs that `core-tuning dg` is asked for, and their hyper-parameters by DomainBed's rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from core_tuning.checkpoints.sources import EMBEDDED, default_encoder
from core_tuning.errors import UserError
from core_tuning.files import field, read_lines
from core_tuning.methods import METHODS
from core_tuning.options import declared

from .config import ALL, HPARAM_OF, DomainGeneralisation
from .environments import Environments
from .hyperparameters import check_hparams, default_hparams, own_hparams, random_hparams
from .names import CHECKPOINT_VARIABLE, seed_hash

RESULTS = "results.jsonl"
Record = dict[str, Any]


class One(NamedTuple):
    """One run of those that a command line describes.

    Attributes:
        asked: options of this run alone.
        options: the same, its optimisation as its hyper-parameters have it.
        targets: numbers of the domains that are left out.
        hparams: all hyper-parameters, by DomainBed's names.
    """

    asked: DomainGeneralisation
    options: DomainGeneralisation
    targets: tuple[int, ...]
    hparams: dict[str, Any]

    @property
    def method(self) -> str:
        """A key of METHODS."""
        return self.options.method[0]

    @property
    def seed(self) -> int:
        """Of the splits and of all else."""
        return self.options.seeds[0]


def expand(options: DomainGeneralisation, environments: Environments) -> dict[Path, One]:
    """The runs that a command line describes, by their folders.

    One run has the output folder for itself, as DomainBed's train.py has; several have folders in
    it, as DomainBed's sweep has.
    """
    output = options.output
    assert output is not None
    runs = {}
    for seed in options.seeds:
        for hparams_seed in options.hparams_seed:
            for method in options.method:
                for targets in _targets(options, len(environments.names)):
                    name = "-".join(map(str, targets))
                    path = output / f"{method}_target{name}_hparams{hparams_seed}_seed{seed}"
                    own = replace(
                        options, method=[method], seeds=[seed], hparams_seed=[hparams_seed],
                        test_envs=[str(target) for target in targets], output=path,
                    )  # fmt: skip
                    runs[path] = resolve(own, targets, environments)
    if len(runs) == 1:
        [one] = runs.values()
        return {output: one._replace(asked=replace(one.asked, output=output))}
    return runs


def _targets(options: DomainGeneralisation, environments: int) -> list[tuple[int, ...]]:
    given = options.targets()
    if not isinstance(given, str):
        return [tuple(given)]
    singles: list[tuple[int, ...]] = [(number,) for number in range(environments)]
    return singles if given == ALL else [*singles, *combinations(range(environments), 2)]


def resolve(
    options: DomainGeneralisation, targets: tuple[int, ...], environments: Environments
) -> One:
    """Fill in the hyper-parameters of one run by DomainBed's rules.

    Raises:
        UserError: one that was given is unknown or out of range.
    """
    [method], [seed], [hparams_seed] = options.method, options.seeds, options.hparams_seed
    algorithm, given = METHODS[method].domainbed, options.given_hparams()
    check_hparams(algorithm, given)
    own = own_hparams(algorithm, given)

    def values(steps: int) -> dict[str, Any]:
        if hparams_seed == 0:
            return default_hparams(algorithm, options.dataset, steps=steps)
        drawn = seed_hash(hparams_seed, seed)
        return random_hparams(algorithm, options.dataset, drawn, steps=steps)

    batch_size = {**values(1), **own}["batch_size"]
    smallest = min(len(images) for images in environments.images)
    inside = smallest - int(smallest * options.holdout_fraction)
    steps = options.total_steps(max(1, inside // batch_size))
    hparams = values(steps)
    if given.get("checkpoint") == EMBEDDED:
        # No other encoder fits it.
        hparams["encoder"] = default_encoder(EMBEDDED)
    hparams |= own
    if not hparams["checkpoint"]:
        raise UserError(
            f"--pretrained is missing for {options.dataset}: name a self-supervised checkpoint by "
            f"it or by the environment variable {CHECKPOINT_VARIABLE}, or 'random' for an encoder "
            "without pre-training."
        )
    optimisation = {name: hparams[hparam] for name, hparam in HPARAM_OF.items()}
    made = replace(options, **optimisation, hyperparameters={
        each.name: hparams[each.name] for each in declared(METHODS[method].hyperparameters)
    })  # fmt: skip
    return One(options, made, targets, hparams)


def read_records(folder: Path) -> list[Record]:
    """Return the lines of a finished run's results.jsonl."""
    path = folder / RESULTS
    records = records_of(path)
    if not records:
        raise UserError(
            f"{path} has no record of a run that is finished: restore the file, or start again "
            "with --overwrite."
        )
    return records


def records_of(path: Path) -> list[Record]:
    """Return the lines of a results.jsonl, none if it is missing; a last one that is cut is not."""
    records = read_lines(path)
    for record in records:
        field(record, "step", int, path)
        field(record, "args", dict, path)
    return records
