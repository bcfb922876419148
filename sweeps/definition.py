"""A sweep: the runs that a definition stands for, each with the commands that make it."""

from __future__ import annotations

from typing import Any, NamedTuple

from core_tuning.errors import UserError

from .reading import sweep_names as sweep_names

# More than anyone has made; a product of axes grows fast.
MOST_RUNS = 100_000


class Run(NamedTuple):
    """A run of a sweep.

    Attributes:
        id: short hash of command, options and seed, whatever the machine and the folders.
        title: such as "Core-tuning, dtd, seed 0".
        cell: what a table groups by: the part, the row and each axis, without the seed.
        seed: of the run.
        steps: argument lists of core-tuning, run in order; "{folder}" is the run's folder.
        done: the file inside the folder whose presence says that the run is finished.
        forwards: forward passes of one image in all, an estimate; None if unknown.
    """

    id: str
    title: str
    cell: dict[str, str]
    seed: int
    steps: tuple[tuple[str, ...], ...]
    done: str
    forwards: float | None


class Sweep(NamedTuple):
    """The runs of a definition.

    Attributes:
        name: of the definition.
        title: a line about it.
        paper: {"cells": [...]}, what the paper prints for each cell (`paper.paper_cells`); None
            where it prints nothing.
        runs: in the order in which they are worth having: seed by seed.
        definition: text of the file.
    """

    name: str
    title: str
    paper: dict[str, Any] | None
    runs: tuple[Run, ...]
    definition: str


def load_sweep(
    name: str,
    *,
    seeds: list[int] | None = None,
    small: bool = False,
    settings: dict[str, str] | None = None,
    only: dict[str, list[str]] | None = None,
) -> Sweep:
    """Expand a definition into runs.

    Args:
        name: one of `sweep_names`, or the path of a user's .toml file.
        seeds: in place of the definition's.
        small: take the definition's small setting.
        settings: options of the runs by name, "evaluate.NAME" and "hparams.NAME" among them.
        only: keep the cells with one of these values of an axis.

    Raises:
        UserError: no such definition, axis, value or option, or two cells are the same run.
    """
    from .checking import check_seeds
    from .expand import (
        cells_of,
        check_cells,
        check_only,
        check_settings,
        count_runs,
        run_of,
        select_small,
    )
    from .paper import paper_cells
    from .reading import read_definition

    definition = read_definition(name)
    if seeds is not None:
        check_seeds(seeds, "--seeds")
    parts = definition.parts
    if small:
        parts = select_small(parts, definition.name)
    given = settings or {}
    check_settings(given, parts)
    check_only(only or {}, parts)
    count = count_runs(parts, only or {}, seeds)
    if count > MOST_RUNS:
        raise UserError(
            f"{definition.name} stands for {count:,} runs: expected at most {MOST_RUNS:,}; keep "
            "some of them by --only, or change a copy of the definition."
        )
    runs: list[Run] = []
    paper: list[dict[str, Any]] = []
    for part in parts:
        cells = cells_of(part, only or {})
        check_cells(part, cells, given)
        paper += paper_cells(part, cells, definition.name)
        for seed in part.seeds if seeds is None else seeds:
            runs += [run_of(part, cell, seed, given) for cell in cells]
    if not runs:
        raise UserError(f"--only leaves no run of {definition.name}: give fewer of its keys.")
    _check_different(runs, definition.name)
    runs.sort(key=lambda run: run.seed)
    claims = {"cells": paper} if paper else None
    return Sweep(definition.name, definition.title, claims, tuple(runs), definition.text)


def _check_different(runs: list[Run], name: str) -> None:
    titles: dict[str, str] = {}
    for run in runs:
        if run.id in titles:
            raise UserError(
                f"'{titles[run.id]}' and '{run.title}' of {name} are the same run: leave one of "
                "the two out of the definition."
            )
        titles[run.id] = run.title
