"""The notebooks run, and give what is stored in them."""

import copy
import runpy

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from pages import ROOT, name, same

runs = runpy.run_path(str(ROOT / "docs/run_notebooks.py"))
site = runpy.run_path(str(ROOT / "docs/notebook_pages.py"))
STALE = "Run python docs/run_notebooks.py, and look at what changed."
NOTEBOOKS = runs["NOTEBOOKS"]


def told(output):
    """What is printed, or shown beside a picture."""
    return output.text if output.output_type == "stream" else output.data.get("text/plain", "")


def kind(output):
    return output.get("name"), sorted(output.get("data", ()))


def stale(stored, run):
    """The cells, by id, that gave something else than is stored, with what they gave: of those with
    the tag "varies" other kinds of outputs; of the others other words, or numbers off by 3 %."""
    found = {}
    for cell, new in zip(stored.cells, run.cells, strict=True):
        old, now = cell.get("outputs", []), new.get("outputs", [])
        agree = [kind(x) for x in old] == [kind(x) for x in now]
        if agree and "varies" not in cell.metadata.get("tags", []):
            agree = all(same(told(x), told(y)) for x, y in zip(now, old, strict=True))
        if not agree:
            found[cell.id] = "".join(map(told, now))
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_gives_what_is_stored(path, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    stored = runs["read"](path)
    assert stale(stored, runs["executed"](stored, tmp_path)) == {}, STALE


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_a_notebook_is_stored_as_it_was_run(path):
    stored = runs["read"](path)
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), STALE
    assert all(x.get("name") != "stderr" for cell in code for x in cell.outputs)
    assert stored.metadata.kernelspec.name == "python3"
    assert path.stat().st_size < 400_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_its_page_has_all_that_is_stored(path):
    page = site["markdown"](path.read_text())
    for cell in runs["read"](path).cells:
        assert cell.source.strip() in page
        for output in cell.get("outputs", []):
            text = output.get("text") or output.data.get("image/png") or told(output)
            assert text.strip() in page


def test_there_are_notebooks():
    assert NOTEBOOKS


def notebook(*outputs, tags=()):
    cell = nbformat.v4.new_code_cell(id="cell", outputs=list(outputs), metadata={"tags": [*tags]})
    return nbformat.v4.new_notebook(cells=[cell])


printed = nbformat.v4.new_output("stream", name="stdout", text="loss 0.500 of 3\n")
picture = nbformat.v4.new_output("display_data", data={"image/png": "", "text/plain": "a figure"})


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("loss 0.500 of 3", True),
        ("loss 0.510 of 3", True),
        ("loss 0.520 of 3", False),
        ("loss 0.500 of 4", False),
        ("score 0.500 of 3", False),
    ],
)
def test_what_is_printed_is_compared(text, agrees):
    other = copy.deepcopy(printed)
    other.text = text
    assert stale(notebook(printed), notebook(other)) == ({} if agrees else {"cell": text})
    assert stale(notebook(printed, tags=["varies"]), notebook(other)) == {}


def test_what_is_missing_is_found():
    both = notebook(printed, picture, tags=["varies"])
    assert stale(both, notebook(printed, picture)) == {}
    for other in (notebook(printed), notebook(picture), notebook()):
        assert "cell" in stale(both, other)


def test_a_warning_is_an_error(tmp_path):
    loud = notebook()
    loud.cells[0].source = "import warnings\nwarnings.warn('old')"
    with pytest.raises(CellExecutionError, match="UserWarning"):
        runs["executed"](loud, tmp_path)
