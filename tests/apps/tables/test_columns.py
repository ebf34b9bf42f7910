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
        ("%d.%m.%y", "date"),
        ("%d-%m-%Y", "date"),
        ("%m-%d-%Y %H:%M", "date"),
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


def test_a_model_remembers_the_decimal_comma():
    first = code(pd.DataFrame({"a": ["1,5", "2,250"], "b": ["1.5", "2,250"]}))
    assert [column.form for column in first.columns] == [",", ""]
    np.testing.assert_array_equal(first.x, [[1.5, 1.5], [2.25, 2250]])
    again = code_like(pd.DataFrame({"a": ["1,100", "1.100"], "b": ["1,100", "2"]}), first.columns)
    np.testing.assert_array_equal(again.x, [[1.1, 1100], [1100, 2]])


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1 234", 1234),
        ("1\u00a0234,5", 1234.5),
        ("1.234,50 €", 1234.5),
        ("€1.234.567", 1234567),
        ("\u22122.5", -2.5),
        ("-$1,000", -1000),
        ("3%", 3),
    ],
)
def test_numbers_as_people_write_them(cell, number):
    column, x, _ = coded([cell, "7", "12"])
    assert (column.kind, x.tolist()) == ("number", [number, 7, 12])


def test_words_among_numbers_and_dates_are_missing():
    numbers = [str(i / 7) for i in range(196)]
    column, x, told = coded([*numbers, "n.a.", "none", "very much", "too many"])
    assert (column.kind, np.isnan(x).sum()) == ("number", 4)
    assert told == ("a ('n.a.', 'none', 'very much', 'too many')",)
    column, x, _ = coded([cell if i % 5 else "None" for i, cell in enumerate(numbers)])
    assert (column.kind, np.isnan(x).sum()) == ("number", 40)
    days = pd.date_range("2023-01-01", periods=40).strftime("%Y-%m-%d").tolist()
    column, x, told = coded([*days, "unknown", "some day"])
    assert (column.kind, np.isnan(x).sum(), told) == ("date", 2, ("a ('unknown', 'some day')",))
    codes = [str(i % 90) for i in range(200)] + [f"V{i}" for i in range(8)]
    assert coded(codes)[0].kind == "category"


def test_whether_the_day_comes_first_is_found_out_or_said():
    days = pd.Series(pd.date_range("2023-01-01", "2033-01-01"))
    early = days[days.dt.day <= 12]
    frame = pd.DataFrame({"d": early.dt.strftime("%d/%m/%Y")})
    found = code(frame)
    assert found.columns[0].form == "%m/%d/%Y"
    assert found.notes == ("In 'd', 02/01/2023 could be two dates; read month first: 2023-02-01.",)
    frame.iloc[777] = "13/12/2023"  # is in no sample
    found = code(frame)
    assert (found.columns[0].form, found.notes) == ("%d/%m/%Y", ())
    assert found.x[1, 0] == pd.Timestamp("2023-01-02").timestamp()
    dashed = code(pd.DataFrame({"d": early.dt.strftime("%d-%m-%Y")}))
    assert "read day first: 2023-01-02." in dashed.notes[0]
