"""Runs the notebooks: `python docs/run_notebooks.py` writes their outputs into them."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parent / "notebooks").glob("*.ipynb"))
STRICT = """import warnings
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
warnings.filterwarnings("ignore", "'.*' deprecated - use '.*'", module="matplotlib")
"""
"""Warnings are errors, but for those of the kernel itself, and of matplotlib before 3.10.7."""


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def executed(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """The notebook with what its cells give in a new kernel, which works in `folder`.

    Raises `CellExecutionError` if a cell does.
    """
    cells = [nbformat.v4.new_code_cell(STRICT), *notebook.cells]
    run = nbformat.from_dict({**notebook, "cells": cells})
    where = {"metadata": {"path": str(folder)}}
    patience = {"timeout": 600, "startup_timeout": 600}
    settings = {"coalesce_streams": True, "record_timing": False}
    NotebookClient(run, resources=where, **patience, **settings).execute()
    code = (cell for cell in run.cells[1:] if cell.cell_type == "code")
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
    return nbformat.from_dict({**notebook, "cells": run.cells[1:]})


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(executed(read(path), path.parent), path)
