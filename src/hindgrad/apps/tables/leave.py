"""Columns that are not to be learned from, and why."""

import re
from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from hindgrad.apps.tables.columns import Coded, Column

NOTHING = "no values to learn from"

ENOUGH = 20
"""Fewer rows show nothing."""

ID = {"id", "ids", "uuid", "guid", "rowid", "idx", "rownum", "sno"}
"""Words in the names of columns that tell rows apart, if no value comes twice."""

IDS = ID | {"index", "obs", "nr", "no", "cod", "key", "row", "observation", "serial", "sl"}
IDS |= {"number", "num"}
"""Words that are names of such columns by themselves, and where rows are counted."""

WHEN = {"year", "month", "day", "date", "time", "hour", "timestamp", "ms", "t", "seconds", "age"}

SPLITS = {"train", "training", "test", "testing", "valid", "validation", "val", "dev", "holdout"}

ROUNDING = 1e-4
"""An error below this part of the label's standard deviation is none."""

MOST = 40
"""Sums of columns are looked for among at most so many."""


def find_left_out(coded: Coded, y: np.ndarray, label: str, quantity: bool) -> Mapping[str, str]:
    """The columns to leave out by name, each with the reason in words.

    `y` [rows] holds the label: class indices, or a quantity.
    """
    found: dict[str, str] = {}
    for i, column in enumerate(coded.columns):
        values = coded.x[:, i]
        reason = _of_itself(column, values, first=i == 0)
        reason = reason or _gives_away(column, values, y, label, quantity)
        if reason:
            found[column.name] = reason
    if quantity and len(y) >= ENOUGH:
        found |= dict(_parts_of(coded, y, label, found))
    return found


def _of_itself(column: Column, values: np.ndarray, *, first: bool) -> str:
    """Why a column says nothing of a new row, whatever the label; empty if it may."""
    if column.kind == "nothing":
        return NOTHING
    rows = len(values)
    if rows < ENOUGH:
        return ""
    if column.kind == "category":
        if {level.lower() for level in column.levels} <= SPLITS and len(column.levels) > 1:
            return "tells in which part of a split a row is"
        if len(column.levels) == rows or (
            _called_id(column.name) and len(column.levels) > 0.95 * rows
        ):
            return "a name of its own for each row"
    if column.kind == "number" and not np.isnan(values).any():
        return _number(column.name, values, first)
    return ""


def _number(name: str, values: np.ndarray, first: bool) -> str:
    whole = bool(np.all(values == np.floor(values)))
    if not whole or len(np.unique(values)) < len(values) or WHEN & _words(name):
        return ""
    steps = np.diff(values)
    nameless = name.startswith("Unnamed: ")
    if np.all(steps == 1) and (nameless or _words(name) & IDS):
        return "row numbers"
    if _called_id(name) or (nameless and first):
        return "a number of its own for each row"
    size = np.abs(values)
    alike = len({len(str(int(value))) for value in (size.min(), size.max())}) == 1
    if first and alike and (size.min() >= 1e8 or (size.min() >= 1e5 and np.all(steps > 0))):
        return "a number of its own for each row"
    return ""


def _gives_away(
    column: Column, values: np.ndarray, y: np.ndarray, label: str, quantity: bool
) -> str:
    """Whether the column says what the label says."""
    known = ~np.isnan(values)
    if known.sum() < ENOUGH or known.mean() < 0.9:
        return ""
    values, y = values[known], y[known]
    if quantity:
        if column.kind != "number" or np.ptp(values) == 0 or np.ptp(y) == 0:
            return ""
        slope, offset = np.polyfit(values - values.mean(), y - y.mean(), 1)
        error = y - y.mean() - offset - slope * (values - values.mean())
        return f"'{label}' in other units" if _none(error, y) else ""
    codes, there = np.unique(values, return_inverse=True)
    classes = len(np.unique(y))
    if classes < 2:
        return ""
    if len(codes) == len(values):
        return _row_order(column, values, y, label)
    if len(codes) != classes or column.kind not in ("category", "number"):
        return ""
    pairs = len(np.unique(there * (int(y.max()) + 1) + y))
    return (
        f"gives '{label}' away: each of its values goes with one class" if pairs == classes else ""
    )


def _row_order(column: Column, values: np.ndarray, y: np.ndarray, label: str) -> str:
    """Row numbers of whatever name, where the rows are sorted by class."""
    if column.kind != "number" or not np.all(np.diff(values) == 1):
        return ""
    runs = 1 + np.count_nonzero(np.diff(y))
    sorted_ = runs == len(np.unique(y))
    return f"row numbers, and rows are sorted by '{label}'" if sorted_ else ""


def _parts_of(
    coded: Coded, y: np.ndarray, label: str, out: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Pairs of columns whose sum, mean or difference the label is."""
    numbers = [
        i
        for i, column in enumerate(coded.columns)
        if column.kind == "number" and column.name not in out and _varied(coded.x[:, i])
    ]
    if len(numbers) > MOST:
        return
    for i, j in combinations(numbers, 2):
        a, b = coded.x[:, i], coded.x[:, j]
        for what, made in (("sum", a + b), ("mean", (a + b) / 2), ("difference", a - b)):
            if _none(y - made, y) or (what == "difference" and _none(y + made, y)):
                names = [coded.columns[k].name for k in (i, j)]
                for name, other in (names, reversed(names)):
                    yield name, f"'{label}' is the {what} of it and '{other}'"


def _varied(values: np.ndarray) -> bool:
    return not np.isnan(values).any() and len(np.unique(values[:200])) > 2


def _none(error: np.ndarray, y: np.ndarray) -> bool:
    """Whether an error is none but for rounding."""
    return bool(np.abs(error).max() <= ROUNDING * np.std(y))


def _called_id(name: str) -> bool:
    """Whether a name has a word that only ids have, or no other words than ids may have."""
    words = _words(name)
    whole = bool(words) and words <= IDS and not re.search(r"\d", name)
    return bool(words & ID) or whole


def _words(name: str) -> set[str]:
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return set(re.findall(r"[a-z]+", spaced.lower().replace("_", " ")))


def told(left: Mapping[str, str]) -> list[str]:
    """The columns left out in words, those of the same reason together."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left.items():
        reasons.setdefault(reason, []).append(f"'{name}'")
    return [f"Left out: {', '.join(names)} ({reason})." for reason, names in reasons.items()]
