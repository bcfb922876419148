"""A report as markdown, for a repository's documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from .model import Report
from .pivot import tables_of

READING = (
    "Accuracies in %: mean ± half of the 95% interval (Student-t), and in brackets the number of "
    "finished runs. Beside it stands the paper's number, with its standard error (s.e.) where it "
    "prints one; beside a mean of cells stands the mean of the paper's numbers in them, which may "
    "differ in the last digit from one that it prints. “missing” is a cell without a finished "
    "run, “–” a combination that the sweep does not have, or a mean of cells "
    "that lacks one."
)
JUDGING = (
    "Each is judged by differences between runs of the same seed: it holds here if their 95% "
    "interval (Student-t) is above 0 (or, where it says that two differ, does not contain 0), does "
    "not hold here if the interval is below 0, and is not shown here if the interval contains 0 or "
    "has no width. Nothing corrects for their number, {count}: of every twenty comparisons of "
    "methods that do not differ, about one will look as if they did."
)


def markdown(report: Report) -> str:
    """The text of report.md: tables, findings, notes and environment."""
    blocks = [
        f"# {_plain(report.title)}",
        f"Made by {_code(report.command)}.",
        READING,
    ]
    for part in report.parts:
        if part.name:
            blocks.append(f"## {_plain(part.name)}")
        for table in tables_of(part):
            blocks += [f"**{_plain(table.title)}**", _table(table.header, table.rows)]
    if report.findings:
        rows = [(finding.says, finding.verdict, finding.evidence) for finding in report.findings]
        blocks += ["## Findings", JUDGING.format(count=len(rows))]
        blocks.append(_table(("finding", "verdict", "evidence"), rows, left=True))
    blocks += ["## Notes", _list(map(_plain, report.notes))]
    if report.environment:
        blocks += ["## Made with"]
        blocks.append(
            _list(f"{_plain(key)}: {_code(each)}" for key, each in report.environment.items())
        )
    return "\n\n".join(blocks) + "\n"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: bool = False) -> str:
    """Columns are on the right but for the first, unless `left`."""
    rules = ["---" if left or not number else "--:" for number in range(len(header))]
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """A text in which markdown finds nothing to interpret, on one line."""
    for sign in "\\`*_<":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _code(text: str) -> str:
    """A text as code, on one line: more backticks around it than it has side by side."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
