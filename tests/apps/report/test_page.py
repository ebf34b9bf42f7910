"""The page: all that is given is shown as text, and nothing is asked of a network."""

import re
from html.parser import HTMLParser

import pytest
from plotly.graph_objects import Bar
from plotly.graph_objects import Figure as Plotly

from hindgrad.apps.report.page import (
    Figure,
    Gallery,
    Link,
    Page,
    Picture,
    Section,
    Table,
    Verdict,
    Words,
    plain,
)

ODD = ["<b>x</b>", "</script>", "a & b", '"quoted"', "'single'", "{{ 7 * 7 }}", "</td><i>"]
PNG = b"\x89PNG"


class Read(HTMLParser):
    """The text of a page outside of scripts and styles, its tags, and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.attributes, self._open = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("script", "style"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._open.pop()

    def handle_data(self, data):
        if not self._open:
            self.text.append(data.strip())


def written(text):
    """A page with that in every place that a text can have."""
    picture = Picture(PNG, text)
    parts = [
        Words(text),
        Verdict("bad", text, [text]),
        picture,
        Gallery([(picture, [text])]),
        Table([text, text, ""], [[text, Link(text, "there"), picture]], caption=text),
    ]
    sections = [Section(text, parts, "there")]
    return Page(text, sections, about=[text], top=[Words(text)]).html()


@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_given_is_text(odd):
    read, expected = Read(written(odd)), Read(written("x"))
    assert read.tags == expected.tags
    assert read.text.count(odd) == expected.text.count("x") == 14
    assert read.attributes.count(("alt", odd)) == 3


def test_a_figure_is_drawn_by_a_script_that_no_name_ends():
    figure = Figure(Plotly(Bar(x=[plain("</script><b>x</b>")], y=[1.0])), 200)
    page = Page("x", [Section("x", [figure])]).html()
    assert len(page) > 2_000_000  # plotly is in it, once
    assert page.count("<script>") == page.count("</script>") == 2
    assert 'id="figure-1-1"' in page
    assert "<b>x</b>" not in page


def test_without_figures_there_are_no_scripts():
    assert "<script" not in Page("x", [Section("x", [Words("y")])]).html()


def test_nothing_is_loaded():
    """Neither by the page nor by what is in it."""
    picture = Picture(b"\x89PNG", "x")
    figure = Figure(Plotly(Bar(x=[1], y=[2])))
    read = Read(Page("x", [Section("x", [picture, figure])]).html())
    assert not {"link", "iframe", "object", "base", "form"} & set(read.tags)
    sources = [value for name, value in read.attributes if name in ("src", "href", "srcset")]
    assert sources == ["data:image/png;base64,iVBORw=="]
    policies = [value for name, value in read.attributes if name == "content"]
    assert any(policy.startswith("default-src 'none';") for policy in policies)


def test_the_same_page_has_the_same_bytes():
    page = Page("x", [Section("x", [Figure(Plotly(Bar(x=[1], y=[2])))])])
    assert page.html() == page.html()
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", page.html().split("Plotly.newPlot")[-1])
