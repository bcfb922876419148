"""Makes the report of a sweep's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from core_tuning.errors import UserError

from ..claims import ACCURACY, ATTACKS, CLEAN, Claim, budget_name, measures_of
from ..definition import Run
from ..expand import Cell, cell_names, cells_of
from ..folder import State, SweepFolder, state_of
from ..paper import paper_cells
from ..reading import PART, ROW, Definition, Part, parse_definition
from .frames import RESERVED, Line, make_part, runs_frame
from .judging import judge
from .model import PartReport, Report
from .notes import damage_of, notes_of
from .runs import VALIDATION, Reading, attacks_of, budgets_of, read_runs, single_target

_PAPER_ATTACK = ATTACKS["pgd10"]


def read_report(
    folder: SweepFolder,
    command: str,
    claims: Sequence[Claim] | None = None,
    warn: Callable[[str], None] | None = None,
) -> Report:
    """Collect whatever is finished in a sweep's folder.

    Args:
        folder: of the sweep.
        command: that asks for the report, as it is to be shown.
        claims: to judge, about the parts of the folder's definition; its own by default.
        warn: is told of damaged files, which the notes name too.

    Raises:
        UserError: no run is finished and whole, or the folder's definition does not fit its runs.
    """
    definition = parse_definition(folder.definition, folder.name, f"{folder.path}/sweep.json")
    state = state_of(folder)
    by_part = _runs_of_parts(folder, definition)
    done = set(state.done)
    parts, readings = [], []
    for part in definition.parts:
        runs = by_part[part.name]
        if not runs:
            continue
        reading = read_runs(folder, part.command, [run.id for run in runs if run.id in done])
        readings.append(reading)
        parts.append(_part_report(part, runs, reading, folder))
    _check_any(folder, state, readings)
    if warn is not None:
        for sentence in damage_of(readings):
            warn(sentence)
    return Report(
        name=folder.name,
        title=folder.title,
        command=command,
        parts=tuple(parts),
        findings=tuple(judge(definition.claims if claims is None else claims, parts)),
        notes=tuple(notes_of(folder, definition, parts, state, readings)),
        environment={key: str(value) for key, value in folder.environment.items()},
    )


def _runs_of_parts(folder: SweepFolder, definition: Definition) -> dict[str, list[Run]]:
    by_part: dict[str, list[Run]] = {part.name: [] for part in definition.parts}
    for run in folder.runs.values():
        name = run.cell.get(PART, "")
        if name not in by_part:
            raise UserError(
                f"{folder.path}/sweep.json is damaged (a run of the part '{name}', which its "
                "definition lacks): expected what 'core-tuning sweep run' writes."
            )
        by_part[name].append(run)
    return by_part


def _check_any(folder: SweepFolder, state: State, readings: Sequence[Reading]) -> None:
    if any(reading.values for reading in readings):
        return
    damaged = [name for reading in readings for name in reading.damaged]
    if damaged:
        raise UserError(
            f"None of the {len(state.done)} finished runs in {folder.path} can be read, such as "
            f"{damaged[0]}: delete the folders of damaged ones under runs/ and make them again by "
            "'core-tuning sweep run'."
        )
    if state.done:
        raise UserError(
            f"The finished runs in {folder.path} ({len(state.done)}) leave out two domains each, "
            "and only serve leave-one-out selection: finish some that leave out one by "
            "'core-tuning sweep run'."
        )
    raise UserError(
        f"No run in {folder.path} is finished ({len(state.running)} are running, "
        f"{len(state.failed)} failed, {len(state.remaining)} are left): finish some by "
        "'core-tuning sweep run'."
    )


def _part_report(
    part: Part, runs: Sequence[Run], reading: Reading, folder: SweepFolder
) -> PartReport:
    axes = [axis for axis in part.axes if axis != ROW]
    for axis in axes:
        if axis in RESERVED:
            raise UserError(
                f"The axis '{axis}' of {folder.name} has the name of a column of the report: give "
                "it another in the definition."
            )
    values = runs_frame(
        (
            {
                "id": found.id,
                "seed": folder.runs[found.id].seed,
                **{axis: folder.runs[found.id].cell.get(axis, "") for axis in (ROW, *axes)},
                "measure": found.measure,
                "quantity": found.quantity,
                "value": found.value,
            }
            for found in reading.values
            if found.quantity != VALIDATION
        ),
        axes,
    )
    # What was measured beyond what the definition asks for is shown as well.
    extra: dict[tuple[str, ...], dict[tuple[str, str], None]] = {}
    for found in reading.values:
        if found.quantity == VALIDATION:
            continue
        key = _key(folder.runs[found.id], axes)
        extra.setdefault(key, {})[found.measure, found.quantity] = None
    lines = []
    for key, own, claims in _cells(part, runs, axes, folder.name):
        asked = _asked(part, own[0])
        measures = {measure for measure, _ in asked}
        for measure, quantity in {**asked, **extra.get(key, {})}:
            # A number of the paper's without a budget is of the one that the run is made for.
            known = claims if measure in measures else []
            paper = _printed(part, known, measure, quantity)
            lines.append(Line(key, measure, quantity, len(own), *paper))
    return make_part(part.name, part.command, axes, lines, values)


def _key(run: Run, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(run.cell.get(axis, "") for axis in (ROW, *axes))


Group = tuple[tuple[str, ...], list[Run], list[dict[str, Any]]]


def _cells(part: Part, runs: Sequence[Run], axes: Sequence[str], name: str) -> list[Group]:
    """Key, runs and the paper's numbers of each cell that has runs, in the definition's order.

    Runs that leave out two domains are no cells: they only serve leave-one-out selection.
    """
    by_key: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if part.command not in ("dg", "domainbed") or single_target(run) is not None:
            by_key.setdefault(_key(run, axes), []).append(run)
    claims: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    order: dict[tuple[str, ...], int] = {}
    cells: list[Cell] = cells_of(part, {})
    for cell in cells:
        names = cell_names(part, cell)
        order[tuple(names.get(axis, "") for axis in (ROW, *axes))] = len(order)
    for claim in paper_cells(part, cells, name):
        key = tuple(claim["cell"].get(axis, "") for axis in (ROW, *axes))
        claims.setdefault(key, []).append(claim)
    keys = sorted(by_key, key=lambda key: order.get(key, len(order)))
    return [(key, by_key[key], claims.get(key, [])) for key in keys]


def _asked(part: Part, run: Run) -> dict[tuple[str, str], None]:
    """Measures and quantities that a run of the part is made for."""
    if part.command != "robust":
        return dict.fromkeys((measure, ACCURACY) for measure in measures_of(part))
    attacks = [ATTACKS.get(name, name) for name in attacks_of(run)]
    return dict.fromkeys(
        (budget_name(*budget), quantity)
        for budget in budgets_of(run)
        for quantity in (CLEAN, *attacks)
    )


def _printed(
    part: Part, claims: Sequence[dict[str, Any]], measure: str, quantity: str
) -> tuple[float | None, float | None]:
    """The paper's number and standard error of a line; it attacks by PGD-10."""
    for claim in claims:
        own = claim["measure"]
        if own is not None and budget_name(own["norm"], own["eps"]) != measure:
            continue
        for column, value in claim["values"].items():
            meant = ACCURACY
            if part.command == "robust":
                meant = CLEAN if column == CLEAN else _PAPER_ATTACK
            if meant == quantity:
                return value, claim["stderr"]
    return None, None
