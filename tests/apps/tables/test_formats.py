"""Files that are no delimited text."""

import decimal
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pandas.testing
import pytest

from hindgrad.apps.datasets import DataError
from hindgrad.apps.table import read
from hindgrad.apps.tables.formats import read_source


def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "size": rng.normal(size=24).round(3),
            "color": np.array(["red", "green", "blue"])[np.arange(24) % 3],
            "kind": np.array(["old", "new"])[np.arange(24) % 2],
        }
    )


WRITERS = {
    ".parquet": lambda f, p: f.to_parquet(p),
    ".feather": lambda f, p: f.to_feather(p),
    ".jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    ".json": lambda f, p: f.to_json(p, orient="records"),
    ".xlsx": lambda f, p: f.to_excel(p, index=False, engine="openpyxl"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_table_and_is_written_back(tmp_path, suffix):
    if suffix == ".xlsx":
        pytest.importorskip("openpyxl")
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](frame(), path)
    table = read(str(path), label="kind")
    assert table.features == ("size", "color")
    np.testing.assert_allclose(table.x[:, 0], frame()["size"])
    levels = np.array(table.columns[1].levels)
    assert levels[table.x[:, 1].astype(int)].tolist() == frame()["color"].tolist()
    assert [table.classes[c] for c in table.y] == frame()["kind"].tolist()
    assert table.origin.suffix == suffix
    table.origin.write(path, np.array([1, 4]))
    again = read_again(path, suffix)
    pandas.testing.assert_frame_equal(again, frame().iloc[[1, 4]].reset_index(drop=True))


def read_again(path, suffix):
    readers = {
        ".parquet": pd.read_parquet,
        ".feather": pd.read_feather,
        ".xlsx": lambda p: pd.read_excel(p, engine="openpyxl"),
    }
    if suffix in readers:
        return readers[suffix](path)
    return pd.read_json(path, orient="records", lines=suffix == ".jsonl")


COLUMNS = {"a": [i / 4 for i in range(24)], "label": ["für", "wider"] * 12}
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
BY_ROW = {name: {f"r{i}": v for i, v in enumerate(c)} for name, c in COLUMNS.items()}


@pytest.mark.parametrize("content", [COLUMNS, RECORDS, BY_ROW])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("indent", [None, 1])
def test_json_of_records_or_columns(tmp_path, content, encoding, indent):
    path = tmp_path / "a.json"
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    table = read(str(path))
    np.testing.assert_array_equal(table.x[:, 0], COLUMNS["a"])
    assert table.classes == ("für", "wider")
    table.origin.write(tmp_path / "b.json", np.array([1, 4]))
    again = json.loads((tmp_path / "b.json").read_text(encoding="utf-8"))
    if isinstance(content, list):
        assert again == [RECORDS[1], RECORDS[4]]
    else:
        assert list(again) == ["a", "label"]
        values = again["a"].values() if content is BY_ROW else again["a"]
        assert list(values) == [0.25, 1.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "there are no rows"),
        ("3", "it is a int"),
        ('{"data": [{"a": 1}]}', "save the list under 'data' alone"),
        ("[1, 2]", "the list holds ints and not records only"),
        ('{"a": [1, 2], "b": [1]}', "one object with 'a', 'b'"),
    ],
)
def test_json_of_no_table_is_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(str(tmp_path / "a.json"))
    assert "\n" not in str(caught.value)


def test_only_line_feeds_end_records_of_json(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [record | {"note": f"x\u2028{i % 3}\x85"} for i, record in enumerate(RECORDS)]
    path.write_text("\n".join(json.dumps(r, ensure_ascii=False) for r in rows), encoding="utf-8")
    assert len(read(str(path)).y) == 24


def sheet(path, rows):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    return str(path)


BODY = [[i * i / 4, ["01234", "1234"][i % 2], "yes" if i % 3 else "no"] for i in range(24)]
NAMES = ["a", "zip", "label"]


@pytest.mark.parametrize(
    ("above", "note"),
    [
        ([NAMES], ""),
        ([[], [], NAMES], ""),
        ([["My study, 2020"], [], NAMES], "The first line left aside, above the names"),
        ([NAMES, ["m", "-", None]], "The line below the names is no row, but units: m, -, ."),
        ([], "There is no header: the columns are called column1, column2, …"),
    ],
)
def test_sheets_as_people_have_them(tmp_path, above, note):
    table = read(sheet(tmp_path / "a.xlsx", above + BODY), label=None if above else "column3")
    np.testing.assert_array_equal(table.x[:, 0], [row[0] for row in BODY])
    assert table.features[0] == ("a" if above else "column1")
    assert [table.classes[c] for c in table.y] == [row[2] for row in BODY]
    assert any(line.startswith(note) for line in table.notes)
    table.origin.write(tmp_path / "b.xlsx", np.array([0, 5]))
    again = pd.read_excel(tmp_path / "b.xlsx", header=None, dtype=object, na_values=[""])
    rows = [row + [None] * (3 - len(row)) for row in [*above, BODY[0], BODY[5]]]
    assert again.where(again.notna(), None).to_numpy().tolist() == rows


def test_text_in_a_sheet_stays_text_and_names_come_once(tmp_path):
    source = read_source(Path(sheet(tmp_path / "a.xlsx", [NAMES, *BODY])))
    assert source.frame["zip"][:2].tolist() == ["01234", "1234"]
    path = sheet(tmp_path / "a.xlsx", [["a", "label", "label"], *BODY])
    with pytest.raises(DataError, match="2 columns are named 'label'; rename them"):
        read(path)
    with pytest.raises(DataError, match="the first sheet is empty"):
        read(sheet(tmp_path / "a.xlsx", []))


def test_parquet_of_decimals_categories_dates_and_an_index(tmp_path):
    path = tmp_path / "a.parquet"
    days = pd.date_range("2024-01-01", periods=24, freq="36h")
    frame().assign(
        cost=[decimal.Decimal(i) / 4 for i in range(24)],
        color=frame()["color"].astype("category"),
        day=days,
        parts=[[1, 2]] * 24,
    ).set_index("kind", append=True).reset_index("kind").set_index("size").to_parquet(path)
    table = read(str(path), label="kind")
    assert "The index is left aside; it stays in what is written." in table.notes
    assert "Left out: 'parts' (no values to learn from)." in table.notes
    kinds = {column.name: column.kind for column in table.columns}
    assert kinds == {"color": "category", "cost": "number", "day": "date"}
    np.testing.assert_array_equal(table.x[:, table.features.index("cost")], np.arange(24) / 4)
    seconds = table.x[:, table.features.index("day")]
    np.testing.assert_array_equal(seconds, [day.timestamp() for day in days])


ARFF = """% a comment
@RELATION weather
@attribute 'how warm' numeric
@attribute outlook {sunny, 'over cast', rainy}
@attribute play {yes, no}
@data
"""


def test_arff(tmp_path):
    rows = [
        f"{'?' if i == 3 else i / 2},{['sunny', chr(39) + 'over cast' + chr(39)][i % 2]},"
        f"{['yes', 'no'][i // 3 % 2]}\n"
        for i in range(24)
    ]
    path = tmp_path / "a.arff"
    path.write_text(ARFF + "".join(rows))
    table = read(str(path), label="play")
    assert table.features == ("how warm", "outlook")
    assert table.columns[1].levels == ("over cast", "sunny")
    assert np.flatnonzero(np.isnan(table.x[:, 0])).tolist() == [3]
    table.origin.write(tmp_path / "b.arff", np.array([0, 5]))
    assert (tmp_path / "b.arff").read_text() == ARFF + rows[0] + rows[5]
    path.write_text(ARFF + "{0 1, 2 yes}\n")
    with pytest.raises(DataError, match="sparse ARFF is not read"):
        read(str(path))
    path.write_text("@data\n1\n")
    with pytest.raises(DataError, match="not readable as ARFF"):
        read(str(path))


def test_arff_has_both_quotes_and_a_question_mark_is_missing(tmp_path):
    head = "@relation r\n@attribute a numeric\n@attribute b string\n@attribute class {x,y}\n@data\n"
    texts = ['"it\'s, 0"', r"'it\'s, 1'", "o'k", "?"]
    rows = [f"{i}, {texts[i % 4]}, {'?' if i == 5 else 'xy'[i // 4 % 2]}\n" for i in range(32)]
    path = tmp_path / "a.arff"
    path.write_text(head + "".join([*rows[:3], "% a comment, it's\n", *rows[3:]]))
    table = read(str(path))
    assert table.columns[1].levels == ("it's, 0", "it's, 1", "o'k")
    assert np.isnan(table.x[:4, 1]).tolist() == [False, False, False, True]
    assert (table.classes, len(table.y)) == (("x", "y"), 31)
    table.origin.write(tmp_path / "b.arff", np.array([0, 1, 2, 30]))
    assert (tmp_path / "b.arff").read_text() == head + rows[0] + rows[1] + rows[2] + rows[30]
    path.write_text(head + rows[0] + "% comment\n" + "1,2\n")
    with pytest.raises(DataError, match="line 8 has 2 fields, and 3 are declared"):
        read(str(path))
