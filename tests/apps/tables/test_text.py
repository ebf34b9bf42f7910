"""Delimited text, as people have it."""

import gzip

import numpy as np
import pytest

from hindgrad.apps.datasets import DataError
from hindgrad.apps.table import read
from hindgrad.apps.tables.formats import read_source

ROWS = [(0.5 * i, i % 7, ["red", "blue"][i % 2]) for i in range(24)]


def written(path, separator=",", decimal=".", header="a{0}b{0}label\n", quote="", before=""):
    lines = [
        separator.join([str(a).replace(".", decimal), str(b), f"{quote}{label}{quote}"])
        for a, b, label in ROWS
    ]
    path.write_text(before + header.format(separator) + "\n".join(lines) + "\n")
    return str(path)


def checked(table):
    np.testing.assert_array_equal(table.x, [(a, b) for a, b, _ in ROWS])
    assert [table.classes[c] for c in table.y] == [label for *_, label in ROWS]


@pytest.mark.parametrize("way", [",.", ";.", ";,", "\t,", "|.", " ."])
def test_any_separator_and_decimal_commas(tmp_path, way):
    checked(read(written(tmp_path / "a.csv", *way)))


def test_runs_of_blanks_separate(tmp_path):
    path = tmp_path / "a.data"
    path.write_text("".join(f"  {a:8.1f}   {b}  {label}\n" for a, b, label in ROWS))
    table = read(str(path))
    checked(table)
    assert table.features == ("column1", "column2")
    assert "There is no header: the columns are called column1, column2, …" in table.notes


def test_comments_quotes_and_compression(tmp_path):
    path = written(tmp_path / "a.csv", quote='"', before="# from a study\n% of 24 rows\n")
    checked(read(path))
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    checked(read(str(packed)))
    packed.write_bytes(b"\x1f\x8b nonsense")
    with pytest.raises(DataError, match=r"not readable as \.gz"):
        read(str(packed))


def test_latin_letters_are_read(tmp_path):
    path = tmp_path / "a.csv"
    text = "länge;label\n" + "".join(f"{i};{'für' if i % 2 else 'wider'}\n" for i in range(24))
    for encoding in ("cp1252", "utf-16", "utf-8-sig"):
        path.write_bytes(text.encode(encoding))
        table = read(str(path))
        assert (table.features, table.classes) == (("länge",), ("für", "wider"))


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("1,2,red", False),
        ("a,b,label", True),
        ("0,1,2", True),  # pandas writes such names
        ("x,?,kind", True),
        ("?,2,red", False),
    ],
)
def test_whether_there_is_a_header_is_noticed(tmp_path, first, header):
    path = tmp_path / "a.csv"
    path.write_text(first + "\n" + "".join(f"{a},{b},{label}\n" for a, b, label in ROWS))
    source = read_source(path)
    assert source.header == header
    assert len(source.frame) == 24 + (not header)


def test_text_without_numbers_has_a_header_unless_its_fields_come_again(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(f"{'xyz'[i % 3]},{'yes' if i % 2 else 'no'}\n" for i in range(24))
    path.write_text("kind,answer\n" + rows)
    assert read_source(path).header
    path.write_text(rows)
    assert not read_source(path).header


def test_names_of_rows_as_r_writes_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        '"a","label"\n' + "".join(f'"r{i}",{i * i},"{"xy"[i % 2]}"\n' for i in range(24))
    )
    table = read(str(path))
    assert table.features == ("a",)
    assert "Left out: 'Unnamed: 0' (a name of its own for each row)." in table.notes


def test_signs_of_currencies_and_thousands_are_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "cost,part,label\n" + "".join(f'"$1,0{i:02}.50",{i}%,{i % 2}\n' for i in range(24))
    )
    np.testing.assert_array_equal(read(str(path)).x, [(1000.5 + i, i) for i in range(24)])


@pytest.mark.parametrize("separator", [",", ";", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_is_read_is_written_back(tmp_path, separator, end):
    path = tmp_path / "a.csv"
    lines = ["# note", separator.join(["a", "a", "label"])]
    lines += [separator.join([f"0{i}.50", "1e3", f'"{"xy"[i % 2]}"']) for i in range(24)]
    path.write_text(end.join(lines) + end, newline="")
    origin = read(str(path)).origin
    path.unlink()  # from memory
    origin.write(tmp_path / "b.csv", np.array([0, 2, 23]))
    kept = [*lines[:2], lines[2], lines[4], lines[25]]
    assert (tmp_path / "b.csv").read_bytes().decode() == end.join(kept) + end


def test_records_over_several_lines_are_written_whole(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f'"{i}\nof ""24""",{i * i},{i % 2}\n' for i in range(24)]
    path.write_text('"a\nb",c,label\n' + "".join(rows))
    table = read(str(path))
    table.origin.write(tmp_path / "b.csv", np.array([3, 5]))
    assert (tmp_path / "b.csv").read_text() == '"a\nb",c,label\n' + rows[3] + rows[5]
