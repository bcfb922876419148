"""A page of one file: its style and images are inside it, and it reads nothing from elsewhere.

`html_page` takes fragments of HTML; the other functions make them of plain text and escape it.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

STYLE = (
    # Said, because a browser's dark mode would otherwise choose one of the two colours alone.
    ":root{color-scheme:light}body{background:#fff;color:#111;"
    "font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
    "overflow-wrap:break-word}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.3em .8em;"
    "text-align:right}td:first-child,th:first-child{text-align:left}"
    "caption{text-align:left;padding:.3em 0;font-weight:bold}img{max-width:100%}"
    # Lines in a cell stay as they are; what is too wide scrolls in its own box.
    ".wide{overflow-x:auto;margin:1em 0}.wide:focus-visible{outline:2px solid #0072b2}"
    ".wide table{font-size:.9em}"
    ".wide td,.wide th,.wide caption{white-space:pre;overflow-wrap:normal;padding:.3em .6em}"
    "dt{font-weight:bold}dd{margin:0 0 .8em 1.5em}"
    "figure{margin:1.5em 0}figcaption{font-size:.9em}"
    # A figure that a telephone shrinks to its width cannot be read.
    "@media(max-width:40em){.wide img{max-width:none;width:40em}}"
    "@media print{body{max-width:none;margin:0}.wide{overflow:visible}.wide table{font-size:.6em}"
    ".wide td,.wide th{padding:.2em .3em}.wide img{max-width:100%}"
    "figure,tr{break-inside:avoid}h2,h3{break-after:avoid}}"
)
# The page is refused everything but what is inside it.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html_page(title: str, body: Sequence[str]) -> str:
    """Return the whole page.

    Args:
        title: shown by the browser, not in the page.
        body: what the functions below return; it is not escaped again.
    """
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style>"
    )
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


def html_terms(items: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms, each with what there is to say about it."""
    terms = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in items
    )
    return f"<dl>{terms}</dl>"


def html_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = ""
) -> str:
    """Return a table whose first column is on the left, the others on the right.

    Args:
        header: (columns,) names.
        rows: each of (columns,) cells, shown as their `str`.
        caption: above the table.

    Raises:
        ValueError: if a row has another number of cells than the header.
    """
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    lines = [above, _row("th", header)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"a row has {len(row)} cells: expected {len(header)}.")
        lines.append(_row("td", row))
    return f"<table>{''.join(lines)}</table>"


def html_wide(fragment: str, name: str) -> str:
    """Return a fragment in a box that scrolls, by keyboard too, where the page is too narrow.

    Lines in the cells of a table inside are kept as they are.

    Args:
        fragment: such as a table; it is not escaped again.
        name: of the box, for who cannot see it.
    """
    label = html.escape(name)
    return f'<div class="wide" role="region" tabindex="0" aria-label="{label}">{fragment}</div>'


def html_figure(path: Path, description: str, caption: str) -> str:
    """Return a PNG file as an image with a caption, which scrolls where the page is narrow."""
    image = html_wide(html_image(path, description), description)
    return f"<figure>{image}<figcaption>{html.escape(caption)}</figcaption></figure>"


def html_image(path: Path, description: str) -> str:
    """Return a PNG file as an image inside the page; the description is for who cannot see it."""
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{encoded}">'


def _row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"
