"""What a reader of a report must know besides its numbers, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from ..folder import State, SweepFolder
from ..reading import PART, Definition, Part
from .choosing import chosen_by_validation
from .model import PartReport
from .runs import LEAVE_ONE_OUT, Reading, count_lines, is_on_validation

MOST_FAILURES = 10


def notes_of(
    folder: SweepFolder,
    definition: Definition,
    parts: Sequence[PartReport],
    state: State,
    readings: Sequence[Reading],
) -> list[str]:
    """The notes of a sweep's report; `readings` are of `parts`, one by one."""
    reported = {part.name for part in parts}
    defined = [part for part in definition.parts if part.name in reported]
    notes = [*_standing(folder, state), *damage_of(readings)]
    for part, reading in zip(defined, readings, strict=True):
        notes += _on_validation(folder, part)
        notes += chosen_by_validation(folder, part, reading)
    return [*notes, *_about_the_paper(parts)]


def damage_of(readings: Sequence[Reading]) -> list[str]:
    """Say which files are damaged; no sentence if none is."""
    found = count_lines({name: n for reading in readings for name, n in reading.damaged.items()})
    return [found] if found else []


def _standing(folder: SweepFolder, state: State) -> list[str]:
    total = len(folder.runs)
    if len(state.done) == total:
        return [f"Finished: all {total} runs of the sweep's folder."]
    notes = [
        f"{len(state.done)} of {total} runs are finished: {len(state.failed)} failed, "
        f"{len(state.running)} are running, {len(state.remaining)} are not begun or stopped "
        "half-way; cells show how many of their runs are in them."
    ]
    shown = list(state.failed.items())[:MOST_FAILURES]
    notes += [f"Failed: {folder.runs[id].title} ({id}): {said}" for id, said in shown]
    if len(state.failed) > len(shown):
        notes.append(f"{len(state.failed) - len(shown)} more runs failed.")
    return notes


def _on_validation(folder: SweepFolder, part: Part) -> list[str]:
    """Say of a part of `robust` if its numbers are not of test images."""
    runs = [run for run in folder.runs.values() if run.cell.get(PART, "") == part.name]
    if part.command != "robust" or not all(is_on_validation(run) for run in runs):
        return []
    prefix = f"{part.name}: " if part.name else ""
    return [f"{prefix}All accuracies are on validation images, and none on test images."]


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
    domains = [part.cells for part in parts if part.command in ("dg", "domainbed")]
    if any(cells[cells["measure"] == LEAVE_ONE_OUT]["n"].eq(0).all() for cells in domains):
        notes.append(
            f"No {LEAVE_ONE_OUT}: that rule needs runs that leave out every pair of domains, too."
        )
    if printed & {"dg", "domainbed"}:
        notes.append(
            "The paper does not say by which rule it selects models; its number stands beside "
            "each of DomainBed's."
        )
    return notes
