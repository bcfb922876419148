"""Judges the claims of a definition by paired differences over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from core_tuning.report.summary import Summary, summarise

from ..claims import Claim
from .frames import over_axes
from .labels import quantity_name
from .model import Finding, PartReport

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
    return [_judge(claim, by_name.get(claim.part)) for claim in claims]


def _judge(claim: Claim, part: PartReport | None) -> Finding:
    if part is None:
        evidence = f"The sweep's folder has no run of the part '{claim.part}'."
        return Finding(claim.says, NOT_MEASURED, evidence)
    cells = _cells(claim, part)
    means = over_axes(part, (claim.first, claim.second), cells)
    differences = (means[claim.first] - means[claim.second]).dropna()
    said = f"{claim.first} minus {claim.second}"
    if len(differences) < 2:
        seeds = "one seed has" if len(differences) else "no seed has"
        evidence = f"{said}: {seeds} finished the runs of both, too few to judge."
        return Finding(claim.says, NOT_MEASURED, evidence)
    summary = summarise([float(value) for value in differences])
    assert summary.interval is not None
    low, high = summary.mean - summary.interval, summary.mean + summary.interval
    evidence = (
        f"{said}: {summary.mean:+.2f} points of {_quantity(claim, cells)}, 95% interval "
        f"[{low:+.2f}, {high:+.2f}] over {summary.runs} pairs of the same seed."
    )
    if summary.interval < _LEAST_WIDTH:
        # Few runs on few images come out equal by chance, and no interval has no width.
        evidence = f"{evidence} All differences are equal, which tells nothing of their spread."
        return Finding(claim.says, NOT_SHOWN, evidence)
    return Finding(claim.says, _verdict(claim, summary), evidence)


def _cells(claim: Claim, part: PartReport) -> pd.DataFrame:
    """Lines of the cells that the claim is about and that both of its rows have."""
    cells = part.cells[part.cells["quantity"] == claim.quantity]
    measure = claim.measure
    if measure is None and part.command in ("dg", "domainbed"):
        # Others may choose by what must not be known, or need runs that a sweep lacks.
        measure = next(iter(cells["measure"]), None)
    if measure is not None:
        cells = cells[cells["measure"] == measure]
    for axis, names in claim.where.items():
        cells = cells[cells[axis].isin(names)]
    cells = cells[cells["row"].isin((claim.first, claim.second))]
    rows = cells.groupby([*part.axes, "measure"], sort=False)["row"].transform("nunique")
    return cells[rows == 2]


def _quantity(claim: Claim, cells: pd.DataFrame) -> str:
    name = quantity_name(claim.quantity)
    many = len(cells) // 2
    return name if many == 1 else f"{name}, mean of {many} cells"


def _verdict(claim: Claim, summary: Summary) -> str:
    assert summary.interval is not None
    if summary.mean - summary.interval > 0:
        return HOLDS
    if summary.mean + summary.interval < 0:
        return HOLDS if claim.two_sided else FAILS
    return NOT_SHOWN
