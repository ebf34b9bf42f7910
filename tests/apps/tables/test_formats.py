"""Files that are no delimited text."""

import decimal

import numpy as np
import pandas as pd
import pandas.testing
import pytest

from hindgrad.apps.datasets import DataError
from hindgrad.apps.table import read


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
