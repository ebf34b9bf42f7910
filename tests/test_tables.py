"""The tables in the documentation say what the code says."""

import runpy
from pathlib import Path

import pytest

import hindgrad as hg

DOCS = Path(__file__).parents[1] / "docs"
tables = runpy.run_path(str(DOCS / "tables.py"))


@pytest.mark.parametrize("page", tables["TABLES"])
def test_page_is_up_to_date(page):
    text = (DOCS / page).read_text()
    assert text == tables["filled"](page, text), "Run python docs/tables.py."


def test_a_stale_row_is_replaced():
    page = "# Page\n\n<!-- adjoints -->\n| old |\n<!-- /adjoints -->\n\nrest\n"
    text = tables["filled"]("adjoints.md", page)
    assert "old" not in text
    assert "[`Forward`]" in text
    assert text.startswith("# Page\n")
    assert text.endswith("\nrest\n")
    assert tables["filled"]("adjoints.md", text) == text


def test_every_public_adjoint_has_a_row():
    table = tables["adjoints"]()
    bases = {"Adjoint", "Recall"}
    named = [getattr(hg, name) for name in hg.__all__]
    public = [x for x in named if isinstance(x, type) and issubclass(x, hg.Adjoint)]
    assert sorted(x.__name__ for x in public if f"`{x.__name__}`" not in table) == sorted(bases)


def test_missing_marker_is_an_error():
    with pytest.raises(ValueError, match="needs <!-- adjoints -->"):
        tables["filled"]("adjoints.md", "no marker")
