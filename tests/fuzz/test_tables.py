"""Random odd tables: read with the right values, or refused in one clear line.

HINDGRAD_FUZZ_CASES=5000 tries as many.
"""

import csv
import os
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, seed, settings

from conftest import SEED
from hindgrad.apps.distill.command import divide
from hindgrad.apps.model import CLIP, Network, draw_problem
from hindgrad.apps.table import FEW, DataError, read

CASES = int(os.environ.get("HINDGRAD_FUZZ_CASES", "100"))

fuzz = lambda test: seed(SEED)(
    settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(test)
)

NAMES = ["a", "b", "a", "a.1", "", " a ", "x0", "x1", "1", "None", "Unnamed: 0", "[red]", "[/x]"]
NAMES += ["line\nbreak", "\r", 'quo"te', "com,ma", "é", "🙂", "class", "label", "Y", "nan"]
LABELS = ["label", "target", "y", "Class", "kind", "x0", "a", "line\nbreak", "[/x]", "sum"]
TEXTS = ["rose", " iris ", "a,b", 'quo"te', "line\nbreak", "[red]", "é", "🙂", "-", "x" * 50]
NUMBERS = [0, 1, -1, 2, 0.5, -0.0, 0.1, 1 / 3, 1e-310, 1e30, -1e38, 255, 65536, 2**53]
UNUSUAL = [float("nan"), float("inf"), 3e38, 1e300, 10**25, "text", "", "1,5", "0x10", "NA"]
TIMES = [1600000028391, 1600000030709, 1600000045310, 1600000045311, 1600000045312]


@dataclass
class Case:
    """Columns as they are meant; what is said of them is said without the library's readers."""

    names: list[str]
    columns: list[list[Any]]
    label: int
    """Which of the columns is the label."""
    given: str | None
    """--label"""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self):
        return len(self.columns[0])

    @property
    def features(self):
        return [c for i, c in enumerate(self.columns) if i != self.label]

    @property
    def plain(self):
        """Whether there is no reason to refuse it."""
        numbers = all(
            isinstance(v, (int, float)) and abs(v) < 3e38 for c in self.features for v in c
        )
        label = self.columns[self.label]
        counts = Counter(label)
        fine = numbers and self.rows >= 20 and len(set(self.names)) == len(self.names) > 1
        recognised = self.given == self.names[self.label]
        classes = 2 <= len(counts) <= 6 and min(counts.values()) >= 3 and "NA" not in counts
        known = not any(value == "" for value in label)
        return fine and recognised and classes and known and not self.options


def feature(rows):
    """A column of one kind of values."""
    usual = st.sampled_from([NUMBERS, NUMBERS, TIMES, [7], [0.1], [True, False], list(range(50))])
    plain = usual.flatmap(lambda v: st.lists(st.sampled_from(v), min_size=rows, max_size=rows))
    odd = st.lists(st.sampled_from([*NUMBERS, *UNUSUAL]), min_size=rows, max_size=rows)
    floats = st.lists(st.floats(-1e30, 1e30), min_size=rows, max_size=rows)
    return st.one_of(plain, plain, plain, floats, odd if rows else plain)


@st.composite
def label_column(draw, rows):
    kind = draw(st.sampled_from(["text", "few", "wholes", "floats", "bools", "times", "odd"]))
    if kind == "floats":
        return draw(st.lists(st.floats(-1e3, 1e3), min_size=rows, max_size=rows))
    if kind in ("times", "odd"):
        values = TIMES if kind == "times" else [0, 1, *UNUSUAL]
        return draw(st.lists(st.sampled_from(values), min_size=rows, max_size=rows))
    pool = {"text": TEXTS, "few": [0, 1, 5], "wholes": [0.0, 1.0, -2.0], "bools": [True, False]}
    values = draw(st.lists(st.sampled_from(pool[kind]), min_size=1, max_size=4, unique=True))
    shift = draw(st.integers(0, 5))
    return [values[(i + i // 7 * shift) % len(values)] for i in range(rows)]


@st.composite
def cases(draw):
    rows = draw(st.sampled_from([0, 1, 5, 19, 20, 21, 30, 40]))
    count = draw(st.integers(0, 4))
    names = draw(st.lists(st.sampled_from(NAMES), min_size=count, max_size=count))
    columns = [draw(feature(rows)) for _ in range(count)]
    at = draw(st.integers(0, count))
    names.insert(at, draw(st.sampled_from(LABELS)))
    columns.insert(at, draw(label_column(rows)))
    given = names[at] if draw(st.booleans()) else draw(st.sampled_from([None, None, "nothing"]))
    options = {}
    if draw(st.integers(0, 3)) == 0:
        options["task"] = draw(st.sampled_from(["classification", "regression"]))
    if draw(st.integers(0, 3)) == 0:
        options["drop"] = draw(st.lists(st.sampled_from(names), max_size=2))
    return Case(names, columns, at, given, options)


def attempt(path, label, **options):
    """The table, or why it was refused, in one line."""
    try:
        return read(str(path), label=label, **options)
    except DataError as error:
        said = str(error)
    assert said.startswith((f"{path}: ", "--", "table: "))
    assert said.isprintable(), said
    return said


def checked(path, case, classes, label):
    """Reads the table and compares it; returns it, or None if it was refused."""
    table = attempt(path, case.given, **case.options)
    if isinstance(table, str):
        assert not case.plain, table
        return None
    if case.given != case.names[case.label]:
        return table  # another column may be the label
    assert table.label == label
    values = case.columns[case.label]
    if any(is_missing(value) for value in values):
        return table
    if len({name.strip() for name in case.names}) == len(case.names):
        columns = dict(zip(case.names, case.columns, strict=True))
        for name, column in zip(table.features, table.x.T, strict=True):
            given = columns.get(name)
            if given and all(isinstance(v, (int, float)) for v in given) and not bools(given):
                np.testing.assert_array_equal(column, [float(v) for v in given])
    task = case.options.get("task", "auto")
    number = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    if task == "auto":
        few = number and len(set(values)) <= FEW and all(float(v).is_integer() for v in values)
        task = "classification" if few or not number else "regression"
    assert table.kind == task
    if task == "regression":
        np.testing.assert_array_equal(table.y, [float(v) for v in values])
    else:
        assert [table.classes[c] for c in table.y] == [classes(v) for v in values]
        assert len(set(table.classes)) == len(table.classes)
    return table


def bools(values):
    return any(isinstance(value, bool) for value in values)


def is_missing(value):
    """Also what stands for missing values in a quantity, or makes a number of a text."""
    if isinstance(value, str):
        return value.strip() in ("", "NA", "-", "nan", "1,5", "0x10", "text")
    return value != value


def name_of(value):
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def as_text(value):
    return repr(value) if isinstance(value, float) else str(value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@fuzz
@given(
    case=cases(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "", "\ufeff"]),
    tail=st.sampled_from(["", "\n", "\n\n"]),
)
def test_csv(folder, case, quoting, end, mark, tail):
    path = folder / "table.csv"
    if any("\r" in name for name in case.names):
        quoting = csv.QUOTE_ALL  # without quotes it would be the end of a line
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(mark)
        writer = csv.writer(file, quoting=quoting, lineterminator=end)
        writer.writerow(case.names)
        writer.writerows([as_text(c[i]) for c in case.columns] for i in range(case.rows))
        file.write(tail)
    names = case.names
    floats = any(isinstance(v, float) for v in case.columns[case.label])
    said = lambda v: name_of(float(v) if floats and isinstance(v, (int, float)) else v)
    table = checked(path, case, said, names[case.label])
    if table is not None:
        divided(table)


PARQUET = [
    "as it is",
    "category",
    "Int64",
    "boolean",
    "string",
    "bytes",
    "lists",
    "dicts",
    "Decimal",
]
PARQUET += ["dates", "float32", "structs of lists"]


@fuzz
@given(case=cases(), kind=st.sampled_from(PARQUET), doubled=st.booleans())
def test_parquet(folder, case, kind, doubled):
    path = folder / "table.parquet"
    values = case.columns[case.label]
    convert = {
        "lists": lambda v: [1, 2],
        "dicts": lambda v: {"a": str(v)},
        "structs of lists": lambda v: {"a": [str(v)]},
        "Decimal": lambda v: Decimal(str(v)) if isinstance(v, (int, float)) else Decimal(1),
        "bytes": lambda v: str(v).encode(),
        "dates": lambda v: pd.Timestamp("2020-01-01") + pd.Timedelta(days=len(str(v))),
    }.get(kind)
    try:
        arrays = [pa.array(c) for c in case.columns]
        if convert:
            arrays[case.label] = pa.array([convert(v) for v in values])
        elif kind != "as it is":
            series = pd.Series(values).astype(kind)
            arrays[case.label] = pa.Array.from_pandas(series)
            if kind == "Int64":
                case.columns[case.label] = series.tolist()  # a truth value is a number there
        names = case.names if doubled else list(dict.fromkeys(case.names))
        if len(names) < len(case.names):
            names = [f"{name}{i}" for i, name in enumerate(case.names)]
            case.names, case.given = names, case.given and names[case.label]
        pq.write_table(pa.Table.from_arrays(arrays, names=names), path)
    except (pa.ArrowException, TypeError, ValueError, ArithmeticError, RuntimeWarning):
        return  # there is no such file
    if convert or kind in ("category", "string", "float32", "boolean"):
        table = attempt(path, case.given, **case.options)
        if isinstance(table, str):
            return
        named = case.given == case.names[case.label]  # else another column may be the label
        if kind == "bytes" and table.kind == "classification" and named:
            assert [table.classes[c] for c in table.y] == [str(v) for v in values]
        return
    table = checked(path, case, name_of, case.names[case.label])
    if table is not None:
        divided(table)


DTYPES = [
    ">f4",
    "<f8",
    ">f8",
    "f2",
    ">i2",
    "<i8",
    ">u4",
    "u1",
    "?",
    "S3",
    ">U3",
    "c8",
    "M8[s]",
    "g",
]
DTYPES += [[("a", "f4")], "m8[s]", "V2"]


@fuzz
@given(
    x=st.sampled_from(DTYPES),
    y=st.sampled_from(DTYPES),
    shape=st.sampled_from([(2,), (3,), (2, 3), (2, 1, 3), (0,), (), (1, 1)]),
    column=st.booleans(),
    rows=st.sampled_from([0, 1, 19, 20, 30]),
    name=st.sampled_from(["y", "label", "x0", "x1", "x5", "X", "kind", "../up", "line\nbreak"]),
    given=st.booleans(),
    order=st.sampled_from("CF"),
    more=st.sampled_from([{}, {"names": np.arange(3)}, {"y": np.array(3)}, {"class": np.ones(20)}]),
    drop=st.sampled_from([(), (), ("x0",), ("y",)]),
)
def test_npz(folder, x, y, shape, column, rows, name, given, order, more, drop):
    path = folder / "table.npz"
    rng = np.random.default_rng(rows)
    whole = rng.integers(0, 3, (rows, *shape))
    labels = np.arange(rows) % 2
    try:
        arrays = {"x": np.asarray(whole.astype(x), order=order), name: labels.astype(y)}
    except (TypeError, ValueError):
        return  # there is no such array
    if column:
        arrays[name] = arrays[name][:, None]
    np.savez(path, **(more | arrays))
    table = attempt(path, name if given else None, drop=drop)
    if isinstance(table, str):
        right = x in (">f4", "<f8", ">f8", "f2", ">i2", "<i8", ">u4", "u1", "g")
        right = right and y not in ("c8", "M8[s]", "m8[s]", "V2", [("a", "f4")])
        right = right and shape in ((2,), (3,), (2, 3)) and rows >= 20 and not column and not drop
        assert not (right and given and name in ("y", "label", "kind") and not more), table
        return
    assert name != "x0"
    expected = arrays["x"].astype(np.float64).reshape(rows, -1)
    places = [int(name[1:]) for name in table.features]
    np.testing.assert_array_equal(table.x, expected[:, places])
    assert table.kind == "classification"
    np.testing.assert_array_equal(table.y, labels)
    first = arrays[name].astype(y).astype(object)[:2]
    text = [v.decode() if isinstance(v, bytes) else name_of(v) for v in first]
    assert [float(v) if v not in ("True", "False") else v == "True" for v in table.classes] == [
        float(v) if v not in ("True", "False") else v == "True" for v in text
    ]
    whole = len(places) == expected.shape[1]
    assert table.image == (shape if len(shape) > 1 and not drop and whole else None)
    divided(table)


def divided(table):
    """The parts of the table: none of them empty, each row in one of them, standardised right."""
    width = table.encoder.width
    network = Network((width, 2), table.kind, 10, 1)
    problem, standard = draw_problem(table, network, test=0.3, valid=0.2, seed=1)
    rows = len(table.y)
    division = problem.division
    slots = np.concatenate([division.train_slots, division.valid_slots])
    assert sorted(slots) == list(range(len(problem.pool.y)))
    assert len(problem.pool.y) + len(problem.test.y) == rows
    assert min(len(division.train_slots), len(division.valid_slots), len(problem.test.y)) > 0
    if table.kind == "classification":
        common = set(np.flatnonzero(np.bincount(table.y) >= 3))
        for part in (problem.pool, problem.test):
            assert set(np.asarray(part.y)) >= common
        parts = divide(table.y, 0.3, 0.2, 1)
        assert sorted(np.concatenate(parts)) == list(range(rows))
        assert all(set(table.y[part]) >= common for part in parts)
    x = np.concatenate([problem.pool.x, problem.test.x])
    assert x.shape == (rows, width)
    assert np.isfinite(x).all()
    assert np.isfinite(np.concatenate([problem.pool.y, problem.test.y])).all()
    pool = np.asarray(problem.pool.x, np.float64)
    spread = pool.std(axis=0)
    inside = np.abs(pool).max(axis=0, initial=0) < CLIP
    assert np.all((np.abs(spread - 1) < 1e-3) | (spread == 0) | ~inside)
    if not table.encoder.plain or np.isnan(table.x).any():
        return
    expected = (table.x - standard.mean) / standard.std
    expected = np.clip(expected, -CLIP, CLIP).astype(np.float32)
    np.testing.assert_array_equal(np.sort(x, axis=0), np.sort(expected, axis=0))
    constant = [len(set(column)) == 1 for column in table.x.T]
    assert np.all(pool[:, constant] == 0)
    varied = [len(set(c)) > 1 and np.ptp(c) > 1e-9 * np.abs(c).max() for c in table.x.T]
    for column, before in zip(x.T[varied], table.x.T[varied], strict=True):
        assert len(set(column)) > 1, before
