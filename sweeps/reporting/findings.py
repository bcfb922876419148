"""What the numbers of a sweep show: its claims judged, and what validation chooses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from core_tuning.report.summary import summarise

from ..claims import ACCURACY, CLEAN, Claim
from ..folder import SweepFolder
from ..plan import ROW, Part
from .results import (
    DOMAINS,
    MEASURE,
    VALIDATION,
    Finding,
    PartReport,
    Reading,
    last_attack,
    over_axes,
)

HOLDS = "holds here"
FAILS = "does not hold here"
NOT_SHOWN = "not shown here"
NOT_MEASURED = "not measured"
# Narrower than this an interval is, but for rounding, of equal differences.
_LEAST_WIDTH = 1e-9


def judge(claims: Iterable[Claim], parts: Sequence[PartReport]) -> list[Finding]:
    """Judge claims about parts of a report.

    A seed counts if both rows have finished all the cells that the claim is about; their means
    over these cells make a pair, and the 95% interval (Student-t) of the pairs' differences the
    verdict.
    """
    by_name = {part.name: part for part in parts}
    return [Finding(claim.says, *_judge(claim, by_name.get(claim.part))) for claim in claims]


def _judge(claim: Claim, part: PartReport | None) -> tuple[str, str]:
    """Verdict and evidence."""
    if part is None:
        return NOT_MEASURED, f"The sweep's folder has no run of the part '{claim.part}'."
    cells = _cells(claim, part)
    first, second = (over_axes(part, row, cells) for row in (claim.first, claim.second))
    differences = (first - second).dropna().tolist()
    said = f"{claim.first} minus {claim.second}"
    if len(differences) < 2:
        seeds = "one seed has" if differences else "no seed has"
        return NOT_MEASURED, f"{said}: {seeds} finished the runs of both, too few to judge."
    summary = summarise(differences)
    assert summary.interval is not None
    low, high = summary.mean - summary.interval, summary.mean + summary.interval
    count = len(cells) // 2
    over = f", mean of {count} cells" if count > 1 else ""
    evidence = (
        f"{said}: {summary.mean:+.2f} points of {quantity_name(claim.quantity)}{over}, 95% "
        f"interval [{low:+.2f}, {high:+.2f}] over {summary.runs} pairs of the same seed."
    )
    if summary.interval < _LEAST_WIDTH:
        # Few runs on few images come out equal by chance, and no interval has no width.
        equal = "All differences are equal, which tells nothing of their spread."
        return NOT_SHOWN, f"{evidence} {equal}"
    if low > 0 or (high < 0 and claim.two_sided):
        return HOLDS, evidence
    return FAILS if high < 0 else NOT_SHOWN, evidence


def _cells(claim: Claim, part: PartReport) -> pd.DataFrame:
    """Lines of the cells that the claim is about and that both of its rows have."""
    cells = part.cells[part.cells["quantity"] == claim.quantity]
    measure = claim.measure
    if measure is None and part.command in DOMAINS:
        # Others may choose by what must not be known, or need runs that a sweep lacks.
        measure = next(iter(cells[MEASURE]), None)
    if measure is not None:
        cells = cells[cells[MEASURE] == measure]
    for axis, names in claim.where.items():
        cells = cells[cells[axis].isin(names)]
    cells = cells[cells[ROW].isin((claim.first, claim.second))]
    rows = cells.groupby([*part.axes, MEASURE], sort=False)[ROW].transform("nunique")
    return cells[rows == 2]


def quantity_name(quantity: str) -> str:
    """A quantity without its unit; of `robust` it is "clean", or the name of an attack."""
    names = {ACCURACY: ACCURACY, CLEAN: "accuracy without an attack"}
    return names.get(quantity, f"accuracy under {quantity}")


def name_value(axis: str, value: str) -> str:
    """A value of an axis, with the axis where it is a bare number or share, such as "eta 0.1"."""
    return f"{axis} {value}" if axis != ROW and value[:1].isdigit() else value


def chosen_by_validation(folder: SweepFolder, part: Part, reading: Reading) -> list[str]:
    """Say of each row which values of the grid have the best mean on validation images.

    Of robustness that is the accuracy under the last attack, the mean of all budgets.
    """
    if not part.grid or not reading.values:
        return []
    validation = {id: (measure, value) for id, measure, quantity, value in reading.values
                  if quantity == VALIDATION}  # fmt: skip
    if not validation:
        prefix = f"{part.name}: " if part.name else ""
        return [f"{prefix}Validation chooses nothing: no run was measured on validation images."]
    test = {(id, measure): value for id, measure, quantity, value in reading.values
            if quantity == ACCURACY}  # fmt: skip
    lines = []
    fixed = [axis for axis in part.axes if axis not in part.grid]
    for id, (measure, value) in validation.items():
        run = folder.runs[id]
        own, tried = (
            ", ".join(filter(None, (name_value(axis, run.cell[axis]) for axis in axes)))
            for axes in (fixed, part.grid)
        )
        lines.append((own, tried, run.seed, value, test.get((id, measure))))
    frame = pd.DataFrame(lines, columns=["own", "tried", "seed", "validation", "test"])
    last = quantity_name(last_attack(run)) if part.command == "robust" else ""
    words = {
        "finetune": ("% on validation images", "% on test images"),
        "robust": (f"% {last} on validation images", ""),
    }.get(part.command, ("% on validation images of the source domains", "% on the target domain"))
    return [
        _sentence(", ".join(filter(None, (part.name, str(own)))), found, words)
        for own, found in frame.groupby("own", sort=False)
    ]


def _sentence(where: str, found: pd.DataFrame, words: tuple[str, str]) -> str:
    """Compare settings over the seeds that all of them have.

    Means of different seeds differ by more than the settings. Where no seed has all settings, one
    that has most decides which are compared.
    """
    settings = list(found["tried"].unique())
    table = found.pivot(index="seed", columns="tried", values="validation")[settings]
    most = table.count(axis="columns").idxmax()
    compared = table.loc[:, table.loc[most].notna()].dropna()
    means = compared.mean()
    best = means.idxmax()
    test = found[(found["tried"] == best) & found["seed"].isin(compared.index)]["test"].dropna()
    and_test = f" and {test.mean():.2f}{words[1]}" if len(test) else ""
    of = "" if len(means) == len(settings) else f"{len(means)} of "
    unused = len(found) - compared.size
    left_out = f"; runs of seeds that not all have, which are left out: {unused}" if unused else ""
    prefix = f"{where}: " if where else ""
    return (
        f"{prefix}Validation chooses {best}, with {means[best]:.2f}{words[0]}{and_test} "
        f"(mean of {len(compared)}), among {of}the {len(settings)} settings with finished "
        f"runs{left_out}."
    )
