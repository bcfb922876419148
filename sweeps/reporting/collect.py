"""Collects what is finished in a sweep's folder: its frames, findings, and notes for the reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from core_tuning.errors import UserError

from ..claims import Claim
from ..folder import State, SweepFolder, state_of
from ..plan import PART, Part, Run
from ..reading import parse_definition
from .findings import chosen_by_validation, judge
from .results import (
    DOMAINS,
    LEAVE_ONE_OUT,
    MEASURE,
    PartReport,
    Reading,
    Report,
    count_lines,
    is_on_validation,
    read_part,
    read_runs,
)

_MOST_FAILURES = 10


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
    by_part: dict[str, list[Run]] = {part.name: [] for part in definition.parts}
    for run in folder.runs.values():
        name = run.cell.get(PART, "")
        if name not in by_part:
            raise UserError(
                f"{folder.path}/sweep.json is damaged (a run of the part '{name}', which its "
                "definition lacks): expected what 'core-tuning sweep run' writes."
            )
        by_part[name].append(run)
    done = set(state.done)
    defined = [part for part in definition.parts if by_part[part.name]]
    readings = [
        read_runs(folder, part.command, [run.id for run in by_part[part.name] if run.id in done])
        for part in defined
    ]
    parts = [
        read_part(part, by_part[part.name], reading, folder)
        for part, reading in zip(defined, readings, strict=True)
    ]
    _check_any(folder, state, readings)
    damage = count_lines({n: k for reading in readings for n, k in reading.damaged.items()})
    if warn is not None:
        for sentence in damage:
            warn(sentence)
    notes = [*_standing(folder, state), *damage, *_by_part(folder, defined, readings),
             *_about_the_paper(parts)]  # fmt: skip
    return Report(
        name=folder.name,
        title=folder.title,
        command=command,
        parts=tuple(parts),
        findings=tuple(judge(definition.claims if claims is None else claims, parts)),
        notes=tuple(notes),
        environment={key: str(value) for key, value in folder.environment.items()},
    )


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


def _standing(folder: SweepFolder, state: State) -> list[str]:
    total = len(folder.runs)
    if len(state.done) == total:
        return [f"Finished: all {total} runs of the sweep's folder."]
    notes = [
        f"{len(state.done)} of {total} runs are finished: {len(state.failed)} failed, "
        f"{len(state.running)} are running, {len(state.remaining)} are not begun or stopped "
        "half-way; cells show how many of their runs are in them."
    ]
    shown = list(state.failed.items())[:_MOST_FAILURES]
    notes += [f"Failed: {folder.runs[id].title} ({id}): {said}" for id, said in shown]
    if len(state.failed) > len(shown):
        notes.append(f"{len(state.failed) - len(shown)} more runs failed.")
    return notes


def _by_part(
    folder: SweepFolder, parts: Sequence[Part], readings: Sequence[Reading]
) -> Iterator[str]:
    for part, reading in zip(parts, readings, strict=True):
        runs = [run for run in folder.runs.values() if run.cell.get(PART, "") == part.name]
        if part.command == "robust" and all(map(is_on_validation, runs)):
            prefix = f"{part.name}: " if part.name else ""
            yield f"{prefix}All accuracies are on validation images, and none on test images."
        yield from chosen_by_validation(folder, part, reading)


def _about_the_paper(parts: Sequence[PartReport]) -> list[str]:
    notes = []
    printed = {part.command for part in parts if part.cells["paper"].notna().any()}
    if printed:
        notes.append(
            "The paper's standard errors, where it prints any, are over three runs; intervals "
            "here are 95% intervals (Student-t) over the runs of a cell."
        )
    if "robust" in printed:
        notes.append(
            "The paper attacks by PGD-10, so its robust accuracy stands beside PGD-10's alone; a "
            "stronger attack leaves less."
        )
    domains = [part.cells for part in parts if part.command in DOMAINS]
    if any(cells[cells[MEASURE] == LEAVE_ONE_OUT]["n"].eq(0).all() for cells in domains):
        notes.append(
            f"No {LEAVE_ONE_OUT}: that rule needs runs that leave out every pair of domains, too."
        )
    if printed.intersection(DOMAINS):
        notes.append(
            "The paper does not say by which rule it selects models; its number stands beside "
            "each of DomainBed's."
        )
    return notes
