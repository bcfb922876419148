"""What a report of a sweep is made of; whoever draws or prints it reads only this.

pandas is imported nowhere here, so that the other sub-commands of `sweep` do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd


class PartReport(NamedTuple):
    """What a part of a sweep has shown so far.

    Accuracies are in percent, spreads and differences in percentage points.

    Attributes:
        name: of the part; "" for the only one.
        command: "finetune", "dg", "domainbed" or "robust".
        axes: (a,) names of the axes besides "row", in the definition's order; each is a column of
            the frames.
        values: one line for each finished run, measure and quantity. Columns: id, seed, row, each
            axis, measure, quantity, value.

            - row: the row's name; "" if the part has axes only.
            - measure: of robust the budget, such as "l2 0.5" or "linf 4/255"; of dg and domainbed
              the rule of model selection; of finetune "".
            - quantity: of finetune "accuracy" (test, top-1); of dg and domainbed "accuracy" (of the
              target domain); of robust "clean", and the attacks, such as "PGD-10".
        cells: one line for each cell, measure and quantity, finished or not, in the definition's
            order. Columns: row, each axis, measure, quantity, mean, standard_error, interval
            (half-width of the 95 % interval, Student-t), n (finished runs), expected (runs in the
            sweep's folder), paper, paper_standard_error, difference (mean less paper). NaN where
            unknown; n is 0 where nothing is finished.
    """

    name: str
    command: str
    axes: tuple[str, ...]
    values: pd.DataFrame
    cells: pd.DataFrame


class Finding(NamedTuple):
    """A claim, judged by paired differences over the seeds.

    Attributes:
        says: the claim, a sentence, with the table of the paper that it comes from.
        verdict: "holds here", "does not hold here", "not shown here" or "not measured".
        evidence: a sentence with the mean difference, its 95% interval and the number of pairs.
    """

    says: str
    verdict: str
    evidence: str


class Report(NamedTuple):
    """A report of a sweep, or of a folder of DomainBed's runs.

    Attributes:
        name: of the sweep.
        title: a line about it.
        command: that made this report.
        parts: (p,) in the definition's order.
        findings: (f,) in the definition's order.
        notes: sentences: what is missing, failed, damaged and left out.
        environment: what the runs were made with, such as {"torch": "2.9.0"}.
    """

    name: str
    title: str
    command: str
    parts: tuple[PartReport, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    environment: dict[str, str]
