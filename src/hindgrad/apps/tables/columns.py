"""What a column is: numbers, dates, categories or text; and its values as numbers."""

import datetime
import decimal
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.numerals import MISSING, marks_of, with_points
from hindgrad.apps.tables.words import quoted
from hindgrad.apps.tables.written import plain

Kind = Literal["number", "date", "time", "category", "text", "nothing"]

CLIP = 10.0
"""Standardised features are clipped here: a feature that is hardly ever on would blow up."""

WORDS = 4
"""A column whose values have that many words in the mean is text to be read."""

MANY = 30
"""Categories of more values than this do not have a number for each."""

ALMOST = 0.95
"""If so much of a column are numbers or dates, the others are taken for missing; of those with
digits, no more than `ODD` different ones."""

ODD = 3
HALF = 0.5

UNKNOWN = {"none", "n.a.", "unknown", "missing", "not available", "nil", "nat", "<na>"}
UNKNOWN |= {"#value!", "#div/0!", "#ref!", "#name?", "#num!"}
"""What stands for a missing value among numbers and dates, besides `MISSING`; in small letters."""

DAYS = (
    "ISO8601",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%Y/%m/%d",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%b %d, %Y",
    "%b %d %Y",
    "%d %b %Y",
    "%B %d, %Y",
    "%d %B %Y",
)
CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
TIMES = ("%H:%M:%S", "%H:%M", "%I:%M %p", "%I:%M:%S %p")
LIKE_DATE = re.compile(
    r"\d{1,4}[-/.]\w{1,3}[-/.]\d{1,4}.*|[A-Za-z]{3,9} \d{1,2},? \d{4}.*|"
    r"\d{1,2} [A-Za-z]{3,9} \d{4}.*|\d{1,2}:\d{2}.*"
)


@dataclass(frozen=True)
class Column:
    """What a column of a table is."""

    name: str
    kind: Kind = "number"
    form: str = ""
    """How dates and times are written; of numbers in text a comma, if they have decimal commas."""
    levels: tuple[str, ...] = ()
    """The values of categories and texts, sorted."""


@dataclass(frozen=True)
class Coded:
    """Columns, and their values as numbers: those of numbers themselves, seconds since 1970 or
    midnight of dates and times, and the positions in `levels` of categories and texts. What is
    missing is NaN."""

    columns: tuple[Column, ...]
    x: np.ndarray
    """float64 [rows, columns]."""
    told: tuple[str, ...] = field(default=())
    """What was taken for missing, by column."""
    notes: tuple[str, ...] = field(default=())
    """How values were read that could be read otherwise."""
    unread: tuple["Unread", ...] = ()
    """What does not fit the columns of another file."""


@dataclass(frozen=True)
class Unread:
    """Values that are not of the kind that a column has."""

    column: Column
    count: int
    known: int
    """How many values there are."""

    def __str__(self) -> str:
        what = {
            "number": ("is no number", "are no numbers"),
            "date": ("is no date written as before", "are no dates written as before"),
            "time": ("is no time written as before", "are no times written as before"),
        }.get(self.column.kind, ("was never seen", "were never seen"))[self.count > 1]
        return f"{self.column.name}: {self.count:,} of {self.known:,} values {what}"


def code(frame: pd.DataFrame, comma: Collection[str] = ()) -> Coded:
    """The columns of a file, each found out from its values; those named in `comma` have decimal
    commas, if they are numbers."""
    found = [_coded(str(name), series, name in comma) for name, series in frame.items()]
    x = np.empty((len(frame), len(found)))
    for i, (_, values, _) in enumerate(found):
        x[:, i] = values
    told = [f"{column.name} ({marks})" for column, _, marks in found if marks]
    columns = tuple(column for column, _, _ in found)
    series = (pd.Series(frame.iloc[:, i]) for i in range(len(found)))
    notes = filter(None, map(_either_first, series, columns))
    return Coded(columns, x, tuple(told), tuple(notes))


def code_like(frame: pd.DataFrame, columns: Sequence[Column]) -> Coded:
    """The columns of another file, read as those of a table were. What does not fit, such as text
    among numbers, is missing, and counted in `unread`.

    Raises `DataError` if a column holds what is no value, such as lists.
    """
    x = np.full((len(frame), len(columns)), np.nan)
    made, unread = [], []
    for i, column in enumerate(columns):
        series = pd.Series(frame[column.name])
        if column.kind == "number" and is_number(series):
            made.append(column)
            x[:, i] = as_numbers(series)
            continue
        cells = _cells(series)
        if cells is None:
            raise DataError(f"the column '{column.name}' holds lists or the like; give values.")
        found, x[:, i], fits = _read_like(series, pd.Series(cells, dtype=object), column)
        made.append(found)
        known = np.array([cell is not None and cell not in MISSING for cell in cells], bool)
        if not fits[known].all():
            count = int(np.count_nonzero(known & ~fits))
            unread.append(Unread(column, count, int(known.sum())))
    return Coded(tuple(made), x, unread=tuple(unread))


def _read_like(
    series: pd.Series, texts: pd.Series, column: Column
) -> tuple[Column, np.ndarray, np.ndarray]:
    """The column, its values, and which of them are of its kind."""
    match column.kind:
        case "number":
            comma = column.form == "," or marks_of(texts.dropna().unique()).decimal_comma
            values = _parse_numbers(texts, comma)
        case "date" | "time":  # numbers are no nanoseconds since 1970
            values = _seconds(texts if is_number(series) else series, column)
        case "category":
            texts = _as_levels(texts, column.levels)
            found, values = _levels(column.name, column.kind, texts.to_numpy(object))
            return found, values, texts.isin(column.levels).to_numpy()
        case "text":
            found, values = _levels(column.name, column.kind, texts.to_numpy(object))
            return found, values, np.full(len(texts), True)
        case _:
            return column, np.full(len(texts), np.nan), np.full(len(texts), True)
    return column, values, ~np.isnan(values)


def _as_levels(texts: pd.Series, levels: Sequence[str]) -> pd.Series:
    """The values as the table has them: 1.0 for 1, True for TRUE, as formats differ in that."""
    same: dict[str, str] = {}
    for level in levels:
        same.setdefault(plain(level), level)
    exact = set(levels)
    return texts.map(
        lambda cell: cell if cell is None or cell in exact else same.get(plain(cell), cell)
    ).astype(object)


def is_number(series: pd.Series) -> bool:
    """Whether all values are real numbers."""
    dtype = series.dtype
    return pd.api.types.is_numeric_dtype(dtype) and not (
        pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_complex_dtype(dtype)
    )


def as_numbers(series: pd.Series, *, comma: bool = False) -> np.ndarray:
    """Numbers, float64; NaN for what is none. Signs of currencies and thousands are left out.

    `comma`: whether commas are decimal, also where the values alone do not say so.
    """
    if is_number(series):
        return series.to_numpy(np.float64, na_value=np.nan)
    texts = pd.Series(_cells(series), dtype=object)
    return _parse_numbers(texts, comma or marks_of(texts.dropna().unique()).decimal_comma)


def _coded(name: str, series: pd.Series, comma: bool) -> tuple[Column, np.ndarray, str]:
    """The column, its values, and the marks that were taken for missing."""
    if is_number(series):
        numbers = series.to_numpy(np.float64, na_value=np.nan)
        nothing = len(numbers) > 0 and bool(np.isnan(numbers).all())
        return Column(name, "nothing" if nothing else "number"), numbers, ""
    if isinstance(series.dtype, (pd.DatetimeTZDtype,)) or series.dtype.kind == "M":
        column = Column(name, "date", "ISO8601")
        return column, _seconds(series, column), ""
    if series.dtype.kind == "m":
        return Column(name), series.dt.total_seconds().to_numpy(np.float64), ""
    cells = _cells(series)
    if cells is None:
        return Column(name, "nothing"), np.full(len(series), np.nan), ""
    return _from_text(name, cells, comma)


def _cells(series: pd.Series) -> np.ndarray | None:
    """Values as text, None where there is none; None for what is no value, such as lists."""
    given = series.astype(object).to_numpy()
    kinds = (
        bool,
        int,
        float,
        np.generic,
        decimal.Decimal,
        datetime.date,
        datetime.time,
    )
    cells = np.empty(len(given), object)
    for i, value in enumerate(given):
        if isinstance(value, str):
            cells[i] = value.strip()
        elif value is None or value is pd.NA or value is pd.NaT:
            cells[i] = None
        elif isinstance(value, bytes):
            cells[i] = value.decode("utf-8", "replace").strip()
        elif isinstance(value, kinds):
            cells[i] = str(value) if value == value else None
        else:
            return None
    return cells


def _from_text(name: str, cells: np.ndarray, comma: bool) -> tuple[Column, np.ndarray, str]:
    texts = pd.Series(cells, dtype=object)
    unique = texts.dropna().unique()
    marks = [cell for cell in unique if cell in MISSING]
    known = pd.Series([cell for cell in unique if cell not in MISSING], dtype=object)
    told = _listed([mark for mark in marks if mark])
    if not len(known):
        return Column(name, "nothing"), np.full(len(cells), np.nan), told
    comma = comma or marks_of(known).decimal_comma
    numbers = _parse_numbers(known, comma)
    odd = known[np.isnan(numbers)].tolist()
    if len(odd) < len(known) and _few(texts, odd):
        values = _parse_numbers(texts, comma)
        return (
            Column(name, form="," if comma else ""),
            values,
            _listed([*(mark for mark in marks if mark), *odd]),
        )
    column, odd = _date(name, known)
    if column is not None and _few(texts, odd):
        values = _seconds(texts, column)
        return column, values, _listed([*(mark for mark in marks if mark), *odd])
    column, values = _levels(name, _text_kind(known), cells)
    return column, values, told


def _few(texts: pd.Series, odd: list[str]) -> bool:
    """Whether what does not fit is taken for missing: words that say so, unless they are most; and
    little else, of which few have digits, since such may be codes of another kind."""
    others = [cell for cell in odd if cell.lower() not in UNKNOWN]
    codes = [cell for cell in others if re.search(r"\d", cell)]
    rare = len(codes) <= ODD and _share(texts, others) <= 1 - ALMOST
    return rare and _share(texts, odd) < HALF


def _share(texts: pd.Series, odd: list[str]) -> float:
    return float(texts.isin(odd).mean()) if odd else 0.0


def _listed(marks: list[str]) -> str:
    return quoted(marks)


def _parse_numbers(texts: pd.Series, comma: bool) -> np.ndarray:
    if comma:
        texts = texts.map(lambda cell: with_points(cell, True), na_action="ignore")
    values = np.array(pd.to_numeric(texts, errors="coerce"), np.float64)
    others = np.flatnonzero(np.isnan(values) & texts.notna().to_numpy())
    trimmed = texts.iloc[others].map(lambda cell: with_points(cell, False))
    values[others] = np.asarray(pd.to_numeric(trimmed, errors="coerce"), np.float64)
    return values


def _date(name: str, known: pd.Series) -> tuple[Column | None, list[str]]:
    """A column of dates or times of day, if nearly all values are written alike; the others. All
    values are tried, since a single one may tell whether the day comes first."""
    sample = known[:: max(1, len(known) // 200)]
    if np.mean([bool(LIKE_DATE.fullmatch(cell)) for cell in sample]) < HALF:
        return None, []
    like = pd.Series(known[known.map(lambda cell: bool(LIKE_DATE.fullmatch(cell)))])
    sample = pd.Series(like[:: max(1, len(like) // 200)])
    best: tuple[Column | None, list[str]] = (None, known.tolist())
    for kind, forms in (
        ("time", TIMES),
        ("date", ["ISO8601", *(day + clock for clock in CLOCKS for day in DAYS[1:])]),
    ):
        for form in forms:
            if _moments(sample, form).notna().mean() < ALMOST:
                continue
            odd = known[_moments(known, form).isna()].tolist()
            if len(odd) < len(best[1]):
                best = (Column(name, kind, form), odd)  # type: ignore[arg-type]
            if len(odd) == len(known) - len(like):
                return best
    return best


def _moments(texts: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(texts, format=form, errors="coerce", utc=True)


def _either_first(series: pd.Series, column: Column) -> str:
    """What is to be said where either the day or the month may come first; otherwise nothing."""
    first, second = column.form[:2], column.form[3:5]
    if column.kind != "date" or {first, second} != {"%d", "%m"} or column.form[2] == ".":
        return ""
    texts = pd.Series(_cells(series), dtype=object)
    read = _moments(texts, column.form)
    other = _moments(texts, second + column.form[2] + first + column.form[5:])
    differ = np.flatnonzero((read.notna() & (read != other)).to_numpy())
    if not len(differ) or (other.isna() & read.notna()).any():
        return ""
    row, which = differ[0], "day" if first == "%d" else "month"
    day = f"{read.iloc[row]:%Y-%m-%d}"
    return f"In '{column.name}', {texts.iloc[row]} could be two dates; read {which} first: {day}."


def _seconds(series: pd.Series, column: Column) -> np.ndarray:
    """Seconds since 1970, or since midnight."""
    if column.kind == "time":
        moments = pd.to_datetime(series.astype(str), format=column.form, errors="coerce", utc=True)
        parts = moments.dt
        return (parts.hour * 3600 + parts.minute * 60 + parts.second).to_numpy(np.float64)
    if series.dtype == object or pd.api.types.is_string_dtype(series.dtype):
        texts = pd.Series(_cells(series), dtype=object)
        moments = pd.to_datetime(texts, format=column.form, errors="coerce", utc=True)
    else:
        moments = pd.to_datetime(series, errors="coerce", utc=True).reset_index(drop=True)
    moments = moments.dt.tz_localize(None).astype("datetime64[ms]")
    seconds = moments.to_numpy().astype("int64") / 1e3
    return np.where(moments.isna(), np.nan, seconds)


def _text_kind(known: pd.Series) -> Kind:
    words = float(np.mean([cell.count(" ") + 1 for cell in known[:500]]))
    return "text" if len(known) > MANY and words >= WORDS else "category"


def _levels(name: str, kind: Kind, cells: np.ndarray | None) -> tuple[Column, np.ndarray]:
    if cells is None:
        return Column(name, kind), np.array(np.nan)
    texts = pd.Series(cells, dtype=object)
    texts = texts.where(~texts.isin(MISSING), None)
    levels = sorted(texts.dropna().unique())
    codes = pd.Categorical(texts, categories=levels).codes
    values = np.where(codes < 0, np.nan, codes)
    return Column(name, kind, levels=tuple(levels)), values
