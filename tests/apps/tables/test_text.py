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
    (tmp_path / "b.csv").write_bytes(packed.read_bytes())
    checked(read(str(tmp_path / "b.csv")))
    packed.write_bytes(b"\x1f\x8b nonsense")
    with pytest.raises(DataError, match=r"not readable as \.gz"):
        read(str(packed))


def test_latin_letters_are_read(tmp_path):
    path = tmp_path / "a.csv"
    text = "länge;label\n" + "".join(f"{i};{'für' if i % 2 else 'wider'}\n" for i in range(24))
    for encoding in ("cp1252", "utf-16", "utf-32", "utf-8-sig"):
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
        ("2019,2020,kind", True),
        ("2019,2,kind", False),
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


def test_a_line_with_a_name_that_is_known_is_a_header(tmp_path):
    """Where it would be taken for a row; a number could be a value."""
    path = tmp_path / "a.csv"
    path.write_text("2019,2,kind\n" + "".join(f"{a},{b},{label}\n" for a, b, label in ROWS))
    assert list(read_source(path, ["kind"]).frame) == ["2019", "2", "kind"]
    assert read(str(path), label="kind").features == ("2019", "2")
    assert not read_source(path, ["2"]).header


def test_a_name_may_be_a_value_too(tmp_path):
    path = tmp_path / "a.csv"
    rows = "".join(f"{'xo'[i % 2]},{'square' if i % 3 else 'circle'}\n" for i in range(24))
    path.write_text("x,shape\n" + rows)
    assert list(read_source(path).frame) == ["x", "shape"]


def test_one_record_alone_is_a_header_unless_it_has_numbers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("1.5,2,red\n")
    assert len(read_source(path).frame) == 1
    path.write_text("a,b,label\n")
    assert len(read_source(path).frame) == 0


@pytest.mark.parametrize(
    ("before", "note"),
    [
        ("sep=;\n", "Fields are separated by semicolons."),
        ("A study of 2020\n\n", "The first line left aside, above the names of the columns."),
        ("# a note; in two parts\n", "1 line of comments left aside."),
    ],
)
def test_lines_above_the_header(tmp_path, before, note):
    table = read(written(tmp_path / "a.csv", separator=";", before=before))
    checked(table)
    assert note in table.notes
    table.origin.write(tmp_path / "b.csv", np.arange(24))
    assert (tmp_path / "b.csv").read_text().split() == (tmp_path / "a.csv").read_text().split()


def test_a_line_of_units_is_no_row(tmp_path):
    path = written(tmp_path / "a.csv", header="a{0}b{0}label\nm{0}kg{0}-\n")
    table = read(path)
    checked(table)
    assert "The line below the names is no row, but units: m, kg, -." in table.notes


def test_a_comment_may_name_the_columns(tmp_path):
    table = read(written(tmp_path / "a.csv", header="# of 2020\n#a{0}b{0}label\n"))
    checked(table)
    assert table.features == ("a", "b")
    assert "1 line of comments left aside." in table.notes


def test_values_and_texts_that_look_like_comments_are_none(tmp_path):
    path = tmp_path / "a.csv"
    rows = [
        f'{["#", "", ""][i % 3]}g{i % 4},"one\n# two {i % 5}\nend",{i % 2}\n' for i in range(24)
    ]
    path.write_text("kind,text,label\n" + "".join([*rows[:9], "# half of it\n", *rows[9:]]))
    table = read(str(path))
    assert table.columns[0].levels[:2] == ("#g0", "#g1")
    assert table.columns[1].levels[0] == "one\n# two 0\nend"
    assert len(table.y) == 24
    assert "1 line of comments left aside." in table.notes
    table.origin.write(tmp_path / "b.csv", np.array([0, 11]))
    kept = "# half of it\nkind,text,label\n" + rows[0] + rows[11]
    assert (tmp_path / "b.csv").read_text() == kept


def decimals(tmp_path, separator, **columns):
    """The columns of text as numbers, with the forms that the model keeps, and the notes."""
    path = tmp_path / "a.csv"
    rows = zip(*columns.values(), (["red", "blue"] * 200), strict=False)
    quoted = [separator.join(f'"{cell}"' for cell in row) + "\n" for row in rows]
    path.write_text(separator.join([*columns, "label"]) + "\n" + "".join(quoted))
    table = read(str(path))
    return table.x.T.tolist(), [column.form for column in table.coded.columns], table.notes


def test_each_column_has_its_own_decimal_comma(tmp_path):
    ambiguous = [f"1,{100 + i}" for i in range(40)]
    late = [str(i) for i in range(250)] + [f"{i},5" for i in range(50)]
    points, commas = [f"{i % 5}.5" for i in range(300)], [f"{i % 7},25" for i in range(300)]
    thousands = [f"{1 + i % 9}.{100 + i}" for i in range(300)]

    (a,), forms, notes = decimals(tmp_path, ";", a=ambiguous)
    assert (a, forms) == ([(1100 + i) / 1000 for i in range(40)], [","])
    assert "In 'a', 1,100 could be two numbers; read as 1.100." in notes
    (a,), forms, _ = decimals(tmp_path, ",", a=ambiguous)
    assert (a, forms) == ([1100 + i for i in range(40)], [""])
    (a, c), *_ = decimals(tmp_path, ",", a=ambiguous, c=commas[:40])
    assert (a[0], c[0]) == (1100, 0.25)
    (_, p, t), forms, _ = decimals(tmp_path, ";", l=late, p=points, t=thousands)
    assert (forms, p[1], t[1]) == ([",", "", ","], 1.5, 2101)
    (last, c), forms, _ = decimals(tmp_path, "\t", l=late, c=commas)
    assert (last[250], c[1], forms) == (0.5, 1.25, [",", ","])
    (t, p), forms, _ = decimals(tmp_path, ";", t=thousands, p=points)
    assert (t[1], p[1], forms) == (2.101, 1.5, ["", ""])


def test_a_quantity_may_have_decimal_commas(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a;target\n" + "".join(f"{i};1,{100 + i}\n" for i in range(24)))
    np.testing.assert_array_equal(read(str(path)).y, [(1100 + i) / 1000 for i in range(24)])


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
