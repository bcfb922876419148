"""The report as one page that opens from disk, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core_tuning.errors import UserError
from core_tuning.files import write_atomically

from .figures import PartFigures, write_figures
from .markdown import JUDGING
from .model import Finding, PartReport, Report
from .old_page import (
    html_command,
    html_figure,
    html_heading,
    html_list,
    html_page,
    html_paragraph,
    html_table,
    html_terms,
    html_wide,
)
from .pivot import tables_of
from .texts import cell_text

PAGE = "report.html"
READING = (
    "Accuracies are in %: mean ± half of the 95% interval (Student-t, so it holds for runs that "
    "differ by their seed alone, and is wide for few), and in brackets the number of finished "
    "runs. One run has no interval.",
    "Below it stands the paper's number, with its standard error (s.e.) where it prints one, and "
    "in points how far the mean here is from it; below a mean of cells stands the mean of the "
    "paper's numbers in them, which may differ in the last digit from one that it prints.",
    "“missing” is a cell without a finished run; “2 of 3” says that one run is not finished yet. "
    "“–” is a combination that the sweep does not have, or a mean of cells that lacks one.",
)


def write_page(report: Report, sweep_folder: Path, target: Path, *, tsne: bool = True) -> None:
    """Write report.html, which holds its images, and figures/*.png, which are the same images.

    Args:
        report: to be shown.
        sweep_folder: where the runs of `report` are, in `runs/`.
        target: folder of the report.
        tsne: draw t-SNE maps of the features of test images, of the parts of `finetune`.
    """
    figures = write_figures(report, target / "figures")
    for part in report.parts:
        if tsne and part.command == "finetune":
            _add_features(part, figures[part.name], sweep_folder / "runs")
    write_atomically(target / PAGE, report_page(report, figures).encode())


def report_page(report: Report, figures: Mapping[str, PartFigures]) -> str:
    """Return the page.

    Args:
        report: to be shown.
        figures: by the part's name; the files are read.
    """
    body = [html_heading(report.title, level=1), html_command(report.command)]
    if report.findings:
        body += _findings(report.findings)
    body += [html_heading("How to read the tables"), html_list(READING)]
    for part in report.parts:
        body += _part(part, figures[part.name])
    if report.notes:
        body += [html_heading("Notes"), html_list(report.notes)]
    if report.environment:
        body += [html_heading("Made with"), html_terms(report.environment.items())]
    return html_page(report.title, body)


def two_lines(cell: Mapping[str, Any]) -> str:
    """Mean, interval and runs of a cell of `PartReport.cells`, and below it the paper's number."""
    words = cell_text(cell)
    below = ", ".join(filter(None, [words.printed(), words.difference]))
    return "\n".join(filter(None, [words.measured(), below]))


def _add_features(part: PartReport, figures: PartFigures, runs: Path) -> None:
    """Add the t-SNE maps, or say why there are none."""
    # torch and scikit-learn take seconds to import, which a report without maps need not.
    from .tsne import draw_features

    path = figures.stem.with_name(f"{figures.stem.name}-tsne.png")
    try:
        figures.drawings.append(draw_features(part, runs, path))
    except UserError as error:
        figures.left_out.append(f"No t-SNE maps: {error}")


def _findings(findings: Sequence[Finding]) -> list[str]:
    counts = Counter(finding.verdict for finding in findings)
    summary = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
    terms = [
        (f"{finding.verdict[:1].upper()}{finding.verdict[1:]}: {finding.says}", finding.evidence)
        for finding in findings
    ]
    return [
        html_heading("Findings"),
        html_paragraph(f"{summary[:1].upper()}{summary[1:]}."),
        html_terms(terms),
        html_paragraph(JUDGING.format(count=len(findings))),
    ]


def _part(part: PartReport, figures: PartFigures) -> list[str]:
    body = [html_heading(part.name or "Results")]
    for table in tables_of(part, two_lines):
        shown = html_table(table.header, table.rows, caption=table.title)
        body.append(html_wide(shown, table.title))
    body += [html_figure(*drawing) for drawing in figures.drawings]
    return [*body, *map(html_paragraph, figures.left_out)]
