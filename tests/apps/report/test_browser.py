"""The page in a real browser: it is drawn, complains of nothing, loads nothing, and what looks like
markup is text."""

import matplotlib.image
import numpy as np
import pytest
from plotly.graph_objects import Bar
from plotly.graph_objects import Figure as Plotly

from hindgrad.apps.report.page import Figure, Link, Page, Picture, Section, Table, Words, plain

ODD = ["<b>x</b>", "</script>", "<i>a & b</i>"]
LOADED = "return performance.getEntriesByType('resource').map(entry => entry.name)"


@pytest.fixture
def page(tmp_path):
    png = tmp_path / "x.png"
    matplotlib.image.imsave(png, np.eye(4))
    picture = Picture(png.read_bytes(), "a picture")
    figure = Plotly(Bar(x=[1.0, 2.0, 3.0], y=[plain(odd) for odd in ODD], orientation="h"))
    figure.update_layout(title_text=plain(ODD[0]))
    table = Table(ODD, [[Link(ODD[0], "end"), picture, *ODD[2:]]])
    parts = [Words(ODD[1]), table, Figure(figure)]
    path = tmp_path / "page.html"
    far = [Words("x")] * 60
    page = Page(ODD[0], [Section("One", parts), Section("Two", far), Section("End", [], "end")])
    path.write_text(page.html(), encoding="utf-8")
    return path


def test_a_page_is_drawn_as_it_is_meant(browser, page):
    browser.get(page.as_uri())
    assert browser.title == ODD[0]
    assert browser.get_log("browser") == []
    assert browser.execute_script(LOADED) == []
    find = browser.find_elements
    assert find("css selector", "b, i") == []
    assert [title.text for title in find("css selector", "th")] == ODD
    (image,) = find("css selector", "td img")
    assert image.get_property("naturalWidth") == 4
    ticks = [tick.text for tick in find("css selector", ".ytick text")]
    assert sorted(ticks) == sorted(ODD)
    assert find("css selector", ".gtitle")[0].text == ODD[0]
    assert len(find("css selector", ".bars .point")) == 3
    assert find("css selector", ".bars tspan[style*=bold]") == []


def test_links_lead_to_sections(browser, page):
    browser.get(page.as_uri())
    assert browser.execute_script("return scrollY") == 0
    browser.find_element("link text", ODD[0]).click()
    assert browser.execute_script("return scrollY") > 500


def test_what_a_page_would_load_is_not_loaded(browser, tmp_path):
    """Not even if somebody wrote it into one: the page forbids it."""
    (tmp_path / "other.js").write_text("document.title = 'loaded'")
    path = tmp_path / "page.html"
    page = Page("x", [Section("y", [])]).html()
    path.write_text(page.replace("</body>", '<script src="other.js"></script></body>'))
    browser.get(path.as_uri())
    assert browser.title == "x"
    assert any("Content Security Policy" in line["message"] for line in browser.get_log("browser"))
