"""The page beside the pictures of a command."""

import base64

from hindgrad.apps.report.page import Table
from hindgrad.apps.report.pages import REPORT, write_page


def test_the_page_holds_the_pictures_that_are_there_and_says_what_to_do(tmp_path):
    files = {"a.png": "the first", "b.png": "not drawn", "c.csv": "no picture"}
    (tmp_path / "a.png").write_bytes(b"\x89PNG a")
    (tmp_path / "c.csv").write_text("x")
    table = Table(["", "loss"], [["<b>mine</b>", "0.1"]])
    write_page(tmp_path, "A title", ["It went well."], [table], files, ["Look at it."])
    page = (tmp_path / REPORT).read_text()
    assert base64.b64encode(b"\x89PNG a").decode() in page
    assert page.count("<img") == 1
    heads = ["What came out", "What to do next", "The first"]
    places = [page.index(f"<h2>{head}</h2>") for head in heads]
    assert places == sorted(places)
    assert page.index("It went well.") < page.index("&lt;b&gt;mine") < page.index("Look at it.")
    assert "<script" not in page
