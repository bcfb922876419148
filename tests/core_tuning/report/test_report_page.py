"""The page is one file, and shows every text as it is; Markdown and LaTeX have no sign left."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from core_tuning.report.page import Figure, Page, Section, html, markdown, write_html
from core_tuning.report.tables import Table, escape_latex, facts, latex, text
from core_tuning.report.tables import markdown as markdown_table

HOSTILE = "a <b> & \"c\" 'd'</p><script>"
EMPTY_TAGS = {"meta", "img"}


class Reader(HTMLParser):
    """Collects the tags, attributes and texts of a page; every tag must be closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.attributes, self.open = [], [], {}, []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.update(attrs)
        if tag not in EMPTY_TAGS:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data)


@pytest.fixture
def png(tmp_path):
    """Bytes that no text encoding keeps."""
    path = tmp_path / "figures" / "a.png"
    path.parent.mkdir()
    path.write_bytes(b"\x89PNG\r\n\x00\xff" + bytes(range(256)))
    return path


def body(*blocks):
    """Tags and texts of blocks on a page."""
    reader = Reader(html(Page("title", "", [Section("heading", blocks)])))
    start = reader.tags.index("h2") + 1
    return reader.tags[start:], reader.texts[reader.texts.index("heading") + 1 :]


@pytest.mark.parametrize(
    ("block", "tags"),
    [
        (HOSTILE, ["p"]),
        ([HOSTILE], ["ul", "li"]),
        ({HOSTILE: ""}, ["dl", "dt", "dd"]),
        (Table([HOSTILE], []), ["div", "table", "tr", "th"]),
        (Table([""], [(HOSTILE,)]), ["div", "table", "tr", "td"]),
        (Table([], [], HOSTILE), ["div", "table", "caption"]),
    ],
)
def test_text_is_shown_as_it_is(block, tags):
    assert body(block) == (tags, [HOSTILE])


def test_title_heading_and_command_are_shown_as_they_are():
    page = html(Page(HOSTILE, HOSTILE, [Section(HOSTILE, [])], [HOSTILE]))
    assert Reader(page).texts[-5:] == [HOSTILE, "Made by ", HOSTILE, ".", HOSTILE, HOSTILE][-5:]
    assert "<script" not in page


def test_table_holds_the_str_of_each_cell():
    tags, texts = body(Table(["method", "top-1 (%)"], [("CE", 80.5), ("a\nb", None)]))
    assert tags == ["div", "table", *("tr", "th", "th"), *("tr", "td", "td") * 2]
    assert texts == ["method", "top-1 (%)", "CE", "80.5", "a\nb", "None"]


@pytest.mark.parametrize("row", [("CE",), ("CE", 1, 2)])
def test_table_refuses_a_row_of_another_length(row):
    with pytest.raises(ValueError, match=f"{len(row)} cells: expected 2"):
        Table(["method", "top-1"], [("ok", 1), row])


def test_figure_is_embedded_with_a_caption_and_a_description(png):
    reader = Reader(html(Page("t", "", [Section("h", [Figure(png, HOSTILE, "a caption")])])))
    assert reader.tags[-4:] == ["figure", "div", "img", "figcaption"]
    assert reader.texts[-1] == "a caption"
    assert reader.attributes["alt"] == reader.attributes["aria-label"] == HOSTILE
    kind, encoded = reader.attributes["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded, validate=True) == png.read_bytes()


def test_the_page_refers_to_nothing_outside(png, tmp_path):
    page = Page("t", "c", [Section("h", ["x", Figure(png, "d", "c"), Table(["a"], [])])])
    write_html(page, tmp_path / "report.html")
    written = (tmp_path / "report.html").read_text()
    assert written.startswith("<!doctype html>")
    assert written.endswith("</html>\n")
    assert 'lang="en"' in written
    assert "default-src 'none'" in written
    assert "color-scheme: light" in written
    assert not re.search(r"https?:|<script|<link|url\(|@import", written)
    assert re.findall(r'(?:src|href)="([^,"]*)', written) == ["data:image/png;base64"]


def test_markdown_has_what_the_page_has(png, tmp_path):
    blocks = ["a *b* `c`\nd", ["one", "two | three"], {"term": "said"}, Figure(png, "alt", "below")]
    page = Page("A title", "core-tuning `x`", [Section("Heading", blocks)], ["opening"])
    assert markdown(page, tmp_path) == (
        "# A title\n\nMade by `` core-tuning `x` ``.\n\nopening\n\n## Heading\n\n"
        "a \\*b\\* \\`c\\` d\n\n- one\n- two | three\n\n- **term** said\n\n"
        "![alt](figures/a.png)\n\nbelow\n"
    )


def test_a_markdown_table_escapes_what_would_break_it():
    lines = markdown_table(Table(("", "b"), [("x|y", "two\nlines")], "a_b")).splitlines()
    assert lines == ["**a\\_b**", "", "|  | b |", "| --- | --: |", "| x\\|y | two, lines |"]


def test_a_table_for_the_terminal_is_aligned():
    shown = text(Table(("", "top-1"), [("CE", 80.5), ("Core-tuning", "9")], "title"))
    assert shown.splitlines() == ["title", "              top-1", "CE             80.5",
                                  "Core-tuning       9"]  # fmt: skip


def test_latex_has_no_character_left_with_a_meaning():
    nasty = "a_b & 100% of $x^2$ #1 {y} ~ \\input{z} | <b> [λ] ≤ ± –"
    written = latex([Table(("", nasty), [(nasty, "1\n2")], nasty)], ["a\n\\x % y"])
    comment, *lines = written.splitlines()
    assert comment == r"% a \x % y"
    assert r"\textbackslash{}input\{z\} \textbar{} \textless{}b\textgreater{}" in written
    assert r"{1, 2} \\" in written
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\\\(\\\w+\\\)", "", "\n".join(lines))
    assert not set(bare) & set('%$#~^_<>|"')
    assert bare.count("{") == bare.count("}")
    assert [len(re.findall(r"(?<!\\)&", line)) for line in lines if line.endswith(r"\\")] == [1, 1]


def test_latex_escapes():
    assert escape_latex("") == ""
    assert escape_latex("1 %\n\n&") == r"1 \% \&"
    assert escape_latex("\\\\") == r"\textbackslash{}\textbackslash{}"
    assert escape_latex("ε = 4/255") == r"\(\epsilon\) = 4/255"


def test_facts_leave_out_what_says_nothing():
    table = facts({"n": 3, "a_b": None, "c": [], "d": list(range(20)), "e": {"x": 1, "y": [2]}})
    assert [*map(list, table.rows)] == [
        ["images", "3"], ["d", "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, … (20 in all)"],
        ["e", "x 1, y 2"],
    ]  # fmt: skip
