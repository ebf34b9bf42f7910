"""Which column is the label, and how it was told."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.columns import as_numbers, is_number
from hindgrad.apps.tables.numerals import MISSING
from hindgrad.apps.tables.words import quoted

LABELS = ("label", "labels", "target", "targets")
"""Nobody gives these names to a feature."""

LIKELY = (
    ("y",),
    ("survived", "diagnosis", "outcome", "response", "churn", "churned", "default payment"),
    ("class", "classes", "species", "category", "sentiment", "type"),
    ("price", "sale price", "medv", "strength", "quality", "rating", "score", "test score"),
    ("testscr", "mpg", "charges", "salary", "income", "tip", "fare", "total"),
)
"""Names by which a label is recognised, the surest first."""

WHEN = {"year", "month", "day", "date", "time", "hour", "week", "timestamp", "quarter"}

SAME = 0.95
"""A last column of which so much is one value is no label if the first column has classes."""

FEW = 20
"""Whole numbers with at most this many values are taken for classes."""


@dataclass(frozen=True)
class Choice:
    """The label's column."""

    name: str
    why: str
    """Empty if it was given, or is called so."""


def find_label(path: Path, frame: pd.DataFrame, label: str | None, header: bool) -> Choice:
    """The label's column: the one that is named, or by what it is called, or where it is.

    Raises `DataError` if there is no such column, or two are as likely.
    """
    if label is not None:
        return Choice(_given(path, list(frame.columns), label), "")
    columns = list(frame.columns)
    if not columns:
        raise DataError(f"{path}: every column is dropped; leave one for the label.")
    if len(columns) < 2 or not len(frame):
        return Choice(columns[-1], "the last column")
    found = _by_name(path, columns) if header else None
    found = found or (_by_file(path, columns) if header else None)
    found = found or (_by_likely_name(columns) if header else None)
    return found or _by_place(path, frame)


def find_array(path: Path, arrays: list[str], label: str | None) -> Choice:
    """The label among the arrays of an NPZ file: y, label or target, or the only one there is."""
    if label is not None:
        if label not in arrays:
            raise DataError(
                f"{path}: there is no column '{label}' (--label); found {quoted(arrays)}."
            )
        return Choice(label, "")
    found = [name for name in arrays if name.lower() in ("label", "target", "y", "class")]
    if len(found) != 1:
        what = f"more than one label column, {quoted(found)}" if found else "no label column"
        raise DataError(f"{path}: {what}; name it with --label, one of {quoted(arrays)}.")
    return Choice(found[0], "")


def _given(path: Path, columns: list[str], label: str) -> str:
    if label in columns:
        return label
    alike = [c for c in columns if c.strip().lower() == label.strip().lower()]
    if len(alike) != 1:
        raise DataError(f"{path}: there is no column '{label}' (--label); found {quoted(columns)}.")
    return alike[0]


def _by_name(path: Path, columns: list[str]) -> Choice | None:
    found = [column for column in columns if _plain(column) in LABELS]
    if len(found) > 1:
        raise DataError(
            f"{path}: more than one label column, {quoted(found)}; name it with --label."
        )
    return Choice(found[0], "") if found else None


def _by_file(path: Path, columns: list[str]) -> Choice | None:
    """A column of the file's own name, as weather in seattle-weather.csv."""
    stem = path.name.split(".")[0]
    words = re.findall(r"[a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", stem).lower())
    words = [re.sub(r"(?<=...)data$", "", word) for word in words]
    core = "".join(w for w in words if w not in ("data", "dataset", "train", "test", "table"))
    for column in columns:
        name = re.sub(r"[^a-z0-9]", "", column.lower())
        is_whole = len(name) >= 3 and core in (name, name + "s")
        if is_whole or (len(name) >= 5 and core.endswith((name, name + "s"))):
            return Choice(column, "the file is called so")
    return None


def _by_likely_name(columns: list[str]) -> Choice | None:
    plain = [_plain(column) for column in columns]
    for tier in LIKELY:
        for name in tier:
            if name in plain and not (name == "y" and "z" in plain):  # a width then
                return Choice(columns[plain.index(name)], "by its name")
    return None


def _by_place(path: Path, frame: pd.DataFrame) -> Choice:
    """The last column, or the first where the last cannot be the label."""
    first, last = frame.columns[0], frame.columns[-1]
    where = {last: "the last column", first: "the first column"}
    fits = [name for name in (last, first) if _fits(pd.Series(frame[name]), name)]
    of_first, of_last = pd.Series(frame[first]), pd.Series(frame[last])
    if len(fits) == 2 and _mostly_one(of_last) and _has_classes(of_first):
        fits.reverse()
    if not fits:
        raise DataError(
            f"{path}: no column looks like a label; name it with --label, one of "
            f"{quoted(list(frame.columns))}."
        )
    return Choice(fits[0], where[fits[0]])


def _fits(column: pd.Series, name: str) -> bool:
    """Whether it may be a label: no moment, no constant, no text that hardly comes twice."""
    if WHEN & set(_plain(name).split()) or column.dtype.kind == "M":
        return False
    values = column[~column.isin(["", None])]
    count = values.nunique() if _hashable(values) else 0
    if count < 2:
        return False
    return _are_numbers(values) or count <= len(values) / 2


def _hashable(values: pd.Series) -> bool:
    return is_number(values) or all(
        not isinstance(value, (list, dict, set, np.ndarray)) for value in values
    )


def _are_numbers(values: pd.Series) -> bool:
    if is_number(values):
        return True
    known = values[~values.isin(MISSING)]
    return len(known) > 0 and bool(np.isfinite(as_numbers(known)).mean() > SAME)


def _mostly_one(column: pd.Series) -> bool:
    return bool(column.value_counts(normalize=True).iloc[0] >= SAME)


def _has_classes(column: pd.Series) -> bool:
    shares = column.value_counts(normalize=True)
    return 2 <= len(shares) <= FEW and bool(shares.iloc[-1] >= 0.25 / len(shares))


def _plain(name: str) -> str:
    """In small letters, words with blanks between them."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name.strip())
    return re.sub(r"[\W_]+", " ", spaced).strip().lower()
