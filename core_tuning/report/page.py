"""A page: a title and sections of text, tables and figures, as one html file or as Markdown.

The html file's style and images are inside it, and it reads nothing from elsewhere. Every text is
shown as it is.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Template

from core_tuning.files import write_atomically

from . import tables
from .tables import Table, plain


@dataclass(frozen=True)
class Figure:
    """A PNG file, a description for who cannot see it, and a caption."""

    path: Path
    description: str
    caption: str


# A paragraph, a list, terms with what there is to say about each, a table or a figure.
Block = str | Sequence[str] | Mapping[str, str] | Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading, and what stands below it."""

    heading: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A title, the command that made the page ("" for none), and sections.

    Attributes:
        opening: what stands before the first section.
    """

    title: str
    command: str
    sections: Sequence[Section]
    opening: Sequence[Block] = ()


def html(page: Page) -> str:
    """Return the page as one html file; the figures' files are read."""
    return _template().render(page=page)


def write_html(page: Page, path: Path) -> None:
    """Write the page as one html file."""
    write_atomically(path, html(page).encode())


def markdown(page: Page, folder: Path) -> str:
    """Return the page in Markdown, its figures as links from `folder`."""
    blocks = [f"# {plain(page.title)}"]
    if page.command:
        blocks.append(f"Made by {_code(page.command)}.")
    blocks += [_markdown(block, folder) for block in page.opening]
    for section in page.sections:
        blocks.append(f"## {plain(section.heading)}")
        blocks += [_markdown(block, folder) for block in section.blocks]
    return "\n\n".join(blocks) + "\n"


def _markdown(block: Block, folder: Path) -> str:
    if isinstance(block, str):
        return plain(block)
    if isinstance(block, Table):
        return tables.markdown(block)
    if isinstance(block, Figure):
        link = f"![{plain(block.description)}]({block.path.relative_to(folder).as_posix()})"
        return f"{link}\n\n{plain(block.caption)}" if block.caption else link
    if isinstance(block, Mapping):
        return "\n".join(f"- **{plain(term)}** {plain(said)}" for term, said in block.items())
    return "\n".join(f"- {plain(item)}" for item in block)


def _code(text: str) -> str:
    """A text as code, on one line: more backticks around it than it has side by side."""
    text = " ".join(text.split())
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if fence == "`" else f"{fence} {text} {fence}"


@cache
def _template() -> Template:
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("page.html")


def _data_uri(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
