"""A table, and how it is written: for a terminal, in Markdown and in LaTeX (html: `page`)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of a list among facts, so many elements are shown.
_SHOWN = 12
_LABELS = {"n": "images", "selected_on": "model selected on", "selection": "selection rule"}
_GREEK = ("alpha", "beta", "gamma", "delta", "epsilon", "eta", "lambda", "mu", "sigma", "tau")
_LATEX = {
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
    **{letter: rf"\(\{name}\)" for letter, name in zip("αβγδεηλμστ", _GREEK, strict=True)},
}
_SPECIAL = re.compile("|".join(map(re.escape, _LATEX)))


@dataclass(frozen=True)
class Table:
    """Names of the columns, and rows of as many cells, each shown as its `str`.

    The first column is text and stands on the left. A cell may have several lines; where a format
    has room for one, they are joined by commas.

    Raises:
        ValueError: a row has another number of cells than the header.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row has {len(row)} cells: expected {len(self.header)}.")

    def lines(self) -> list[list[str]]:
        """Header and rows as texts of one line each."""
        return [[_joined(str(cell)) for cell in row] for row in (self.header, *self.rows)]


def _joined(cell: str) -> str:
    return ", ".join(filter(None, map(one_line, cell.splitlines())))


def facts(values: Mapping[str, Any], title: str = "") -> Table:
    """A table of names and values, without those that say nothing."""
    rows = [
        (_LABELS.get(name, name.replace("_", " ")), _shown(value))
        for name, value in values.items()
        if value not in (None, "", [], {})
    ]
    return Table(("", ""), rows, title)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        first = ", ".join(map(str, value[:_SHOWN]))
        return first if len(value) <= _SHOWN else f"{first}, … ({len(value)} in all)"
    return str(value)


def text(table: Table) -> str:
    """The table for a terminal, its columns aligned."""
    lines = table.lines()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        "   ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    return "\n".join([table.title, *aligned] if table.title else aligned)


def markdown(table: Table) -> str:
    """The table in Markdown, under its title in bold."""
    header, *rows = [[plain(cell).replace("|", "\\|") for cell in row] for row in table.lines()]
    rules = ["---", *["--:"] * (len(header) - 1)]
    lines = [f"| {' | '.join(row)} |" for row in (header, rules, *rows)]
    title = [f"**{plain(table.title)}**", ""] if table.title else []
    return "\n".join([*title, *lines])


def plain(words: str) -> str:
    """A text in which Markdown finds nothing to interpret, on one line."""
    return re.sub(r"([\\`*_<])", r"\\\1", one_line(words))


def latex(tables: Iterable[Table], comments: Iterable[str] = ()) -> str:
    r"""Tables to be \input into a document that uses booktabs, below comments."""
    lines = [f"% {one_line(comment)}" for comment in comments]
    for table in tables:
        # Braces, because a line that begins with [ would be taken for the last one's spacing.
        header, *rows = [
            " & ".join(f"{{{escape_latex(cell)}}}" for cell in row) + r" \\"
            for row in table.lines()
        ]
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
            r"\toprule",
            header,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    return "\n".join(lines) + "\n"


def escape_latex(words: str) -> str:
    """A text as LaTeX prints it, on one line: no character has a meaning left."""
    return _SPECIAL.sub(lambda found: _LATEX[found[0]], one_line(words))


def one_line(words: str) -> str:
    """A text without line breaks, which end a comment, a table's row or a list's item."""
    return " ".join(words.split())
