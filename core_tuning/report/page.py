"""A page of one file: its style and images are inside it, and it reads nothing from elsewhere.

`html_page` takes fragments of HTML; the other functions make them of plain text and escape it.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.3em .8em;"
    "text-align:right}td:first-child,th:first-child{text-align:left}img{max-width:100%}"
)


def html_page(title: str, body: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: shown by the browser, not in the page.
        body: what the functions below return; it is not escaped again.
    """
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en">{head}', *body, "</html>", ""])


def html_heading(text: str, level: int = 2) -> str:
    """Return a heading; level 1 is the page's own."""
    return f"<h{level}>{html.escape(text)}</h{level}>"


def html_paragraph(text: str) -> str:
    """Return a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def html_command(command: str) -> str:
    """Return the paragraph that names the command behind a page."""
    return f"<p>Made by <code>{html.escape(command)}</code>.</p>"


def html_list(items: Iterable[str]) -> str:
    """Return a list with bullets."""
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table whose first column is on the left, the others on the right.

    Args:
        header: (columns,) names.
        rows: each of (columns,) cells, shown as their `str`.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """
    lines = [_row("th", header)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells: expected {len(header)}.")
        lines.append(_row("td", row))
    return f"<table>{''.join(lines)}</table>"


def html_image(path: Path, description: str) -> str:
    """Return a PNG file as an image inside the page; the description is for who cannot see it."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{encoded}">'


def _row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"
