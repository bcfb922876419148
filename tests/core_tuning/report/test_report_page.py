"""The page is one file, and shows every text as it is."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from core_tuning.report.page import (
    html_command,
    html_figure,
    html_heading,
    html_image,
    html_list,
    html_page,
    html_paragraph,
    html_table,
    html_terms,
    html_wide,
)

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
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x00\xff" + bytes(range(256)))
    return path


@pytest.mark.parametrize(
    ("fragment", "tags"),
    [
        (html_heading(HOSTILE), ["h2"]),
        (html_heading(HOSTILE, level=1), ["h1"]),
        (html_paragraph(HOSTILE), ["p"]),
        (html_list([HOSTILE]), ["ul", "li"]),
        (html_terms([(HOSTILE, "")]), ["dl", "dt", "dd"]),
        (html_table([HOSTILE], []), ["table", "tr", "th"]),
        (html_table([], [], caption=HOSTILE), ["table", "caption", "tr"]),
    ],
)
def test_text_is_shown_as_it_is(fragment, tags):
    reader = Reader(fragment)
    assert reader.tags == tags
    assert reader.texts == [HOSTILE]


def test_the_command_is_shown_as_it_is():
    reader = Reader(html_command(HOSTILE))
    assert reader.tags == ["p", "code"]
    assert reader.texts == ["Made by ", HOSTILE, "."]


def test_less_than_is_escaped():
    """Said without a parser, too: it might forgive what a browser does not."""
    assert html_paragraph("1 < 2 & 3") == "<p>1 &lt; 2 &amp; 3</p>"


def test_table_holds_the_str_of_each_cell():
    table = html_table(["method", "top-1 (%)"], [("CE", 80.5), (HOSTILE, None)])
    reader = Reader(table)
    assert reader.tags == ["table", *("tr", "th", "th"), *("tr", "td", "td") * 2]
    assert reader.texts == ["method", "top-1 (%)", "CE", "80.5", HOSTILE, "None"]


@pytest.mark.parametrize("row", [("CE",), ("CE", 1, 2)])
def test_table_refuses_a_row_of_another_length(row):
    with pytest.raises(ValueError, match=f"{len(row)} cells: expected 2"):
        html_table(["method", "top-1"], [("ok", 1), row])


def test_list_holds_every_item():
    assert Reader(html_list(iter("abc"))).texts == ["a", "b", "c"]


def test_image_is_embedded(png):
    reader = Reader(html_image(png, HOSTILE))
    assert reader.tags == ["img"]
    assert reader.attributes["alt"] == HOSTILE
    kind, encoded = reader.attributes["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(encoded, validate=True) == png.read_bytes()


def test_figure_has_a_caption_and_a_description(png):
    reader = Reader(html_figure(png, HOSTILE, HOSTILE + "!"))
    assert reader.tags == ["figure", "div", "img", "figcaption"]
    assert reader.attributes["alt"] == reader.attributes["aria-label"] == HOSTILE
    assert reader.texts == [HOSTILE + "!"]


def test_a_wide_table_stays_as_it_is():
    table = html_table(["a"], [["b\nc"]])
    box = html_wide(table, HOSTILE)
    assert table in box
    reader = Reader(box)
    assert reader.attributes["tabindex"] == "0"
    assert reader.texts == ["a", "b\nc"]


def test_page_is_whole_and_needs_nothing_else(png):
    """It can be sent by mail: no other file, nothing from the network."""
    body = [html_heading("A", level=1), html_image(png, "b"), html_table(["c"], [["d"]])]
    page = html_page(HOSTILE, body)
    assert page.startswith("<!doctype html>\n")
    assert page.endswith("</html>\n")
    assert not re.search(r'(src|href)="(?!data:)|url\(|@import|<script', page)
    reader = Reader(page)
    assert reader.tags[:6] == ["html", *["meta"] * 3, "title", "style"]
    assert reader.attributes["charset"] == "utf-8"
    assert reader.texts[0] == HOSTILE
    # The body is fragments already, so that it is not escaped twice.
    assert all(part in page for part in body)


def test_first_column_is_on_the_left():
    page = html_page("a", [])
    assert "td,th{border:1px solid #999;padding:.3em .8em;text-align:right}" in page
    assert "td:first-child,th:first-child{text-align:left}" in page
