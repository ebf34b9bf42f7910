"""Which column is taken for the label."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.datasets import DataError
from hindgrad.apps.table import read
from hindgrad.apps.tables.names import find_label


def found(columns, name="table.csv", header=True, label=None):
    """The label among columns of numbers, unless their values are given."""
    values = columns if isinstance(columns, dict) else dict.fromkeys(columns, range(40))
    frame = pd.DataFrame({column: list(v) for column, v in values.items()})
    return find_label(Path(name), frame, label, header).name


@pytest.mark.parametrize(
    ("columns", "label"),
    [
        (["a", "Target", "class", "price"], "Target"),
        (["x", "y"], "y"),
        (["x", "y", "z", "price"], "price"),
        (["survived", "class", "fare"], "survived"),
        (["id", "diagnosis", "radius"], "diagnosis"),
        (["Test score", "income group"], "Test score"),
        (["a", "b", "last"], "last"),
        (["first", "b", "year"], "first"),
        (["first", "b", "pickup time"], "first"),
    ],
)
def test_by_name_or_place(columns, label):
    assert found(columns) == label


@pytest.mark.parametrize(
    ("file", "label"),
    [("seattle-weather.csv", "weather"), ("tips.csv", "tip"), ("letterdata.csv.gz", "letter")],
)
def test_by_the_name_of_the_file(file, label):
    assert found(["weather", "tip", "letter", "other"], file) == label


def test_names_that_are_none_are_not_looked_at():
    assert found(["column1", "y", "column3"], header=False) == "column3"


def test_the_first_where_the_last_cannot_be_it():
    ids = [f"row {i}" for i in range(40)]
    assert found({"total": range(40), "b": range(40), "name": ids}) == "total"
    assert found({"kind": np.arange(40) % 4, "b": range(40), "c": [0] * 39 + [1]}) == "kind"
    assert found({"a": np.arange(40) / 3, "b": range(40), "c": [0] * 39 + [1]}) == "c"


def test_it_is_named_in_the_first_note(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,kind\n" + "".join(f"{i * i % 11},{'xyz'[i % 3]}\n" for i in range(30)))
    note = "Label: 'kind' (the last column; another: --label COLUMN), 3 classes: 'x', 'y', 'z'."
    assert read(str(path)).notes[0] == note
    assert read(str(path), label="KIND ").label == "kind"
    assert (
        read(str(path), label="a").notes[0]
        == "Label: 'a', 6 classes: '0', '1', '3', '4', '5', '9'."
    )


def test_what_cannot_be_a_label_is_refused():
    with pytest.raises(DataError, match="no column looks like a label; name it with --label"):
        found({"day": range(40), "name": [f"row {i}" for i in range(40)]})
    with pytest.raises(DataError, match="more than one label column, 'label', 'target'"):
        found(["label", "target"])
