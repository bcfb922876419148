"""The tables of a report as LaTeX, for a document that uses booktabs."""

from __future__ import annotations

import re

from .model import Report
from .pivot import Table, tables_of

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"\(\pm\)",
    "–": "--",
    "√": r"\(\surd\)",
    "≤": r"\(\leq\)",
    "≥": r"\(\geq\)",
    "∞": r"\(\infty\)",
}
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "eta", "lambda", "mu", "sigma", "tau")
_ESCAPES |= dict(zip("αβγδεηλμστ", (rf"\(\{name}\)" for name in _GREEK), strict=True))
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))


def latex(report: Report) -> str:
    r"""The text of table.tex, to be \input into a document; it needs \usepackage{booktabs}."""
    lines = [f"% {_one_line(report.title)}", f"% made by: {_one_line(report.command)}"]
    for part in report.parts:
        for table in tables_of(part):
            lines += ["", *_table(table)]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """A text as LaTeX prints it: no character has a meaning left."""
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], _one_line(text))


def _one_line(text: str) -> str:
    # A comment ends with its line, and a blank line would end the table.
    return " ".join(text.split())


def _table(table: Table) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(table.title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        _row(table.header),
        r"\midrule",
        *map(_row, table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def _row(cells: tuple[str, ...]) -> str:
    # Braces, because a line that begins with [ would be taken for the last one's spacing.
    return " & ".join(f"{{{escape(cell)}}}" for cell in cells) + r" \\"
