"""What columns are found to be."""

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.tables.columns import code, code_like


def coded(values, name="a"):
    found = code(pd.DataFrame({name: pd.Series(values, dtype=object)}))
    return found.columns[0], found.x[:, 0], found.told


@pytest.mark.parametrize("mark", ["", "?", "NA", "-", "n/a", "NULL", "."])
def test_marks_of_missing_values_in_numbers_and_text(mark):
    column, x, told = coded(["1", "2.5", mark, "4e1"] * 10)
    assert column.kind == "number"
    np.testing.assert_array_equal(x[:4], [1, 2.5, np.nan, 40])
    assert told == ((f"a ('{mark}')",) if mark else ())
    column, x, _ = coded(["red", mark, "blue", "blue"] * 10)
    assert (column.kind, column.levels) == ("category", ("blue", "red"))
    np.testing.assert_array_equal(x[:4], [1, np.nan, 0, 0])


def test_a_few_other_words_among_numbers_are_missing_and_told():
    column, x, told = coded(["1", "2", "3", "4"] * 20 + ["none"])
    assert column.kind == "number"
    assert np.isnan(x[-1])
    assert told == ("a ('none')",)
    column, *_ = coded(["1", "none"] * 20)
    assert column.kind == "category"


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("%Y-%m-%d", "date"),
        ("%Y-%m-%dT%H:%M:%S", "date"),
        ("%d.%m.%Y", "date"),
        ("%m/%d/%Y", "date"),
        ("%d/%m/%Y %H:%M", "date"),
        ("%b %d, %Y", "date"),
        ("%H:%M:%S", "time"),
        ("%H:%M", "time"),
    ],
)
def test_dates_and_times(form, kind):
    moments = pd.date_range("2023-02-25 10:30", periods=40, freq="31h")
    column, x, _ = coded([*moments.strftime(form), None])
    assert column.kind == kind
    assert np.isnan(x[-1])
    expected = pd.to_datetime(moments.strftime(form), format=form)
    if kind == "time":
        expected = expected.hour * 3600 + expected.minute * 60 + expected.second
    else:
        expected = (expected - pd.Timestamp(0)).total_seconds()
    np.testing.assert_array_equal(x[:-1], expected)


def test_booleans_categories_and_free_text():
    assert coded([True, False, None] * 9)[0].levels == ("False", "True")
    assert coded([f"v{i % 40}" for i in range(200)])[0].kind == "category"
    sentences = [f"the {i} small words of a sentence" for i in range(60)]
    assert coded(sentences)[0].kind == "text"
    assert coded([[1], [2]])[0].kind == "nothing"
    assert coded([None, "", "?"])[0].kind == "nothing"


def test_another_file_is_read_as_the_first_was():
    first = code(
        pd.DataFrame({"n": ["1", "2"], "d": ["01.02.2020", "13.02.2020"], "c": ["x", "y"]})
    )
    other = pd.DataFrame({"c": ["z", "?"], "d": ["02.01.2020", "soon"], "n": ["3", "many"]})
    again = code_like(other, first.columns)
    np.testing.assert_array_equal(again.x[:, 0], [3, np.nan])
    np.testing.assert_array_equal(again.x[:, 1], [pd.Timestamp(2020, 1, 2).timestamp(), np.nan])
    assert again.columns[2].levels == ("z",)
    np.testing.assert_array_equal(again.x[:, 2], [0, np.nan])
