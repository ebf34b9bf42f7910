"""The label's values."""

import decimal

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.table import DataError, read

ROWS = 60


def table(folder, cells, name="label", **asked):
    """The table of a file with these labels, over and over."""
    lines = [f"{(7 * i) % 11 / 4},{cells[i % len(cells)]}" for i in range(ROWS)]
    path = folder / "file.csv"
    path.write_text("\n".join([f"a,{name}", *lines, ""]))
    return read(str(path), **asked)


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        (["01", "1", "02"], ("01", "1", "02")),
        (["5%", "1%"], ("1%", "5%")),
        (["$5", '"$1,000"'], ("$5", "$1,000")),
        (["1.0", "2", "+3"], ("1", "2", "3")),
        (["10", "9"], ("9", "10")),
        (["9007199254740993", "9007199254740992", ""], ("9007199254740992", "9007199254740993")),
        (["yes ", "yes", " no", " "], ("no", "yes")),
        (["TRUE", "true", "False"], ("False", "True")),
        (["1_0", "2"], ("1_0", "2")),
        (["1", "2", "3", "NA"], ("1", "2", "3", "NA")),
    ],
)
def test_classes_keep_their_text(tmp_path, label, classes):
    found = table(tmp_path, label, label="label")
    assert (found.kind, found.classes) == ("classification", classes)
    cells = [label[i % len(label)].strip(' "') for i in range(ROWS)]
    assert len(found.y) == sum(cell != "" for cell in cells)


def test_a_quantity_is_of_numbers_however_written(tmp_path):
    found = table(tmp_path, [f'"${1000 + i:,}"' for i in range(30)])
    assert (found.kind, found.y.min(), found.y.max()) == ("regression", 1000, 1029)
    found = table(tmp_path, [f"{i:03}" for i in range(30)])
    assert (found.kind, found.y.max()) == ("regression", 29)


def test_marks_of_missing_values_are_none_in_a_quantity(tmp_path):
    found = table(tmp_path, ["1", "2", "5", "NA"], task="regression")
    assert found.y.tolist() == [1.0, 2.0, 5.0] * (ROWS // 4)
    assert found.rows is not None
    assert found.rows[:4].tolist() == [0, 1, 2, 4]
    with pytest.raises(DataError, match="label 'label' is no number: 'low'"):
        table(tmp_path, ["1", "2", "low"], task="regression")


def test_decimals_of_other_formats_are_numbers(tmp_path):
    path = tmp_path / "file.parquet"
    values = [decimal.Decimal(i) / 4 for i in range(ROWS)]
    pd.DataFrame({"a": np.sin(np.arange(ROWS)), "label": values}).to_parquet(path)
    found = read(str(path))
    assert found.kind == "regression"
    np.testing.assert_array_equal(found.y, np.arange(ROWS) / 4)


@pytest.mark.parametrize(
    ("label", "hint"),
    [([f"{i}.5%" for i in range(30)], True), ([f"r{i}" for i in range(30)], False)],
)
def test_a_quantity_is_proposed_only_of_numbers(tmp_path, label, hint):
    with pytest.raises(DataError, match="has 30 classes in 60 rows; name another") as caught:
        table(tmp_path, label, task="classification")
    assert ("--task regression" in str(caught.value)) == hint


def test_names_have_no_blanks_around_them(tmp_path):
    found = table(tmp_path, ["yes", "no"], name=" label ")
    assert (found.label, found.features) == ("label", ("a",))


def grouped(folder, column, values):
    i = np.arange(ROWS)
    frame = pd.DataFrame(
        {"a": (7 * i) % 11 / 4, "label": np.array(["no", "yes"])[i % 2], "b": i % 5}
    )
    path = folder / "file.csv"
    frame.assign(**{column: np.array(values)[i % len(values)]}).to_csv(path, index=False)
    return str(path)


def test_groups_that_are_the_label_are_refused(tmp_path):
    path = grouped(tmp_path, "doctor", ["A", "B"])
    with pytest.raises(DataError, match="--group 'doctor' has each class in one group only"):
        read(path, group="doctor")
    path = grouped(tmp_path, "doctor", ["A", "B", "C", "D", "E"])
    assert read(path, group="doctor").groups is not None
    patients = grouped(tmp_path, "patient", [f"p{i}" for i in range(10)])
    assert read(patients, group="patient").classes == ("no", "yes")


def test_a_group_that_looks_like_the_label_is_refused(tmp_path):
    path = grouped(tmp_path, "doctor", ["A", "B"])
    with pytest.raises(DataError, match="--group names 'label', which looks like the label"):
        read(path, group="label")


def test_a_narrow_quantity_is_told_in_full(tmp_path):
    found = table(tmp_path, [f"{1e9 + i / 4:.2f}" for i in range(30)])
    assert "a quantity from 1000000000 to 1000000007" in found.notes[0]
