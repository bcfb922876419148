"""The report as a page, and its figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from core_tuning.errors import UserError
from core_tuning.report.page import Block, Page, Section

from .results import Report
from .views import PartFigures, draw_parts, figure_stem, tables_of

READING = [
    "Accuracies are in %: mean ± half of the 95% interval (Student-t, so it holds for runs that "
    "differ by their seed alone, and is wide for few), and in brackets the number of finished "
    "runs. One run has no interval.",
    "With it stands the paper's number, with its standard error (s.e.) where it prints one, and in "
    "points how far the mean here is from it; with a mean of cells stands the mean of the paper's "
    "numbers in them, which may differ in the last digit from one that it prints.",
    "“missing” is a cell without a finished run; “2 of 3” says that one run is not finished yet. "
    "“–” is a combination that the sweep does not have, or a mean of cells that lacks one.",
]
JUDGING = (
    "Each is judged by differences between runs of the same seed: it holds here if their 95% "
    "interval (Student-t) is above 0 (or, where it says that two differ, does not contain 0), does "
    "not hold here if the interval is below 0, and is not shown here if the interval contains 0 or "
    "has no width. Nothing corrects for their number, {count}: of every twenty comparisons of "
    "methods that do not differ, about one will look as if they did."
)


def page_of(report: Report, figures: Mapping[str, PartFigures]) -> Page:
    """The report as a page.

    Args:
        report: to be shown.
        figures: by the part's name; {} leaves them out.
    """
    sections = []
    if report.findings:
        counts = Counter(finding.verdict for finding in report.findings)
        summary = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
        judged = {
            f"{finding.verdict[:1].upper()}{finding.verdict[1:]}: {finding.says}": finding.evidence
            for finding in report.findings
        }
        judging = JUDGING.format(count=len(report.findings))
        blocks: list[Block] = [f"{summary[:1].upper()}{summary[1:]}.", judged, judging]
        sections.append(Section("Findings", blocks))
    sections.append(Section("How to read the tables", [READING]))
    for part in report.parts:
        blocks = [*tables_of(part)]
        if part.name in figures:
            blocks += [*figures[part.name].drawn, *figures[part.name].left_out]
        sections.append(Section(part.name or "Results", blocks))
    sections.append(Section("Notes", [list(report.notes)]))
    if report.environment:
        made_with = {f"{name}:": value for name, value in report.environment.items()}
        sections.append(Section("Made with", [made_with]))
    return Page(report.title, report.command, sections)


def draw_figures(report: Report, runs: Path, folder: Path) -> dict[str, PartFigures]:
    """Draw a report's figures.

    Args:
        report: of the runs.
        runs: the folder of their folders, for t-SNE maps of the features of test images.
        folder: takes the PNG files.
    """
    figures = draw_parts(report.parts, folder, report.name)
    for part in report.parts:
        if part.command == "finetune":
            # torch and scikit-learn take seconds to import, which a report without maps need not.
            from .features import draw_features

            path = folder / f"{figure_stem(report.parts, part, report.name)}-tsne.png"
            try:
                figures[part.name].drawn.append(draw_features(part, runs, path))
            except UserError as error:
                figures[part.name].left_out.append(f"No t-SNE maps: {error}")
    return figures
