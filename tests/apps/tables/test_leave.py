"""Columns that are noticed and left out."""

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.table import DataError, read

RNG = np.random.default_rng(0)
ROWS = 40


def table(tmp_path, label=None, keep=(), **columns):
    frame = pd.DataFrame({"plain": RNG.normal(size=ROWS), **columns})
    frame["label"] = np.arange(ROWS) % 4 if label is None else label
    frame.to_csv(tmp_path / "a.csv", index=False)
    return read(str(tmp_path / "a.csv"), keep=keep)


KIND = np.array(["red", "blue", "green", "black"])[np.arange(ROWS) % 4]
SORTED = np.arange(ROWS) // 10


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("Unnamed: 0", np.arange(ROWS), "row numbers"),
        ("index", np.arange(ROWS) + 1, "row numbers"),
        ("customer_id", RNG.permutation(10 * ROWS)[:ROWS], "a number of its own for each row"),
        ("Serial No.", RNG.permutation(10 * ROWS)[:ROWS], "a number of its own for each row"),
        ("order_no", np.arange(ROWS) + 5, "row numbers"),
        ("userId", [f"u{i}" for i in range(ROWS)], "a name of its own for each row"),
        ("split", ["train", "train", "Test", "train"] * 10, "tells in which part of a split"),
        ("colour", KIND, "gives 'label' away: each of its values goes with one class"),
        ("code", np.arange(ROWS) % 4 * 7.5, "gives 'label' away"),
        ("empty", [None] * ROWS, "no values to learn from"),
    ],
)
def test_left_out_and_said(tmp_path, name, values, reason):
    found = table(tmp_path, **{name: values})
    assert found.features == ("plain",)
    assert any(n.startswith(f"Left out: '{name}' ({reason}") for n in found.notes)
    if name != "empty":
        assert table(tmp_path, keep=[name], **{name: values}).features == ("plain", name)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x", np.arange(ROWS)),
        ("time_ms", 1600000000000 + np.arange(ROWS) * 37),
        ("age", RNG.permutation(ROWS)),
        ("NO2", RNG.permutation(ROWS)),
        ("heat_index", RNG.permutation(ROWS)),
        ("place", [f"p{i // 2}" for i in range(ROWS)]),
        ("half", np.arange(ROWS) % 2),
    ],
)
def test_kept(tmp_path, name, values):
    assert table(tmp_path, **{name: values}).features == ("plain", name)


def test_row_numbers_of_any_name_where_rows_are_sorted_by_class(tmp_path):
    found = table(tmp_path, label=SORTED, n=np.arange(ROWS))
    assert found.features == ("plain",)
    assert "Left out: 'n' (row numbers, and rows are sorted by 'label')." in found.notes


def test_what_a_quantity_is_made_of(tmp_path):
    a, b = RNG.normal(size=(2, ROWS)).round(3)
    for made, what in ((a + b, "sum"), ((a + b) / 2, "mean"), (b - a, "difference")):
        found = table(tmp_path, label=made, a=a, b=b)
        assert found.features == ("plain",)
        assert f"Left out: 'a' ('label' is the {what} of it and 'b')." in found.notes
    found = table(tmp_path, label=a, miles=1.609 * a, b=b)
    assert "Left out: 'miles' ('label' in other units)." in found.notes
    assert table(tmp_path, label=3 * a - 2 * b, a=a, b=b).features == ("plain", "a", "b")


def test_the_only_column_is_kept_and_said(tmp_path):
    path = tmp_path / "a.csv"
    frame = pd.DataFrame({"id": 1000 + RNG.permutation(ROWS), "label": RNG.normal(size=ROWS)})
    frame.to_csv(path, index=False)
    found = read(str(path))
    assert found.features == ("id",)
    note = "Kept, as there is nothing else: 'id' (a number of its own for each row)."
    assert note in found.notes
    frame.assign(id=None).to_csv(path, index=False)
    with pytest.raises(DataError, match="there is no value in any column but the label"):
        read(str(path))
