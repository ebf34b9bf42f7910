"""The label's values: classes, or a quantity."""

import datetime
import decimal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.columns import as_numbers, is_number
from hindgrad.apps.tables.names import FEW
from hindgrad.apps.tables.numerals import MISSING
from hindgrad.apps.tables.words import listed
from hindgrad.apps.tables.written import plain

Kind = Literal["classification", "regression"]
Task = Literal["auto", "classification", "regression"]


@dataclass(frozen=True)
class Labels:
    """The labels of a file's rows."""

    there: np.ndarray
    """Whether a row has one, [rows of the file]."""
    y: np.ndarray
    """int32 class indices or float64 values of the rows that have one."""
    kind: Kind
    classes: tuple[str, ...] = ()


def labels_of(path: Path, written: pd.Series, numbers: pd.Series, task: Task) -> Labels:
    """The labels of a column, `written` as in the file, and `numbers` as the frame has it.

    Text that stands for numbers, and whole numbers of few values, are classes by the text they
    have. In a quantity, what stands for missing values is missing.

    Raises `DataError` if these are no labels.
    """
    written = _stripped(written)
    there = _has_label(written)
    known = written[there].reset_index(drop=True)
    _check_values(path, known)
    values = _numbers(numbers[there].reset_index(drop=True))
    if is_number(numbers) and not np.all(np.abs(values) < np.finfo(np.float32).max):
        raise DataError(f"{path}: infinite or too large values in the label '{written.name}'.")
    found, marks = np.isfinite(values), known.isin(MISSING).to_numpy()
    several = np.unique(values[found])
    few = len(several) <= FEW and bool(np.all(np.mod(several, 1) == 0))
    quantity = len(known) > 0 and bool(found.all() or (np.all(found | marks) and not few))
    if task == "regression" and not np.all(found | marks):
        odd = [f"'{value}'" for value in pd.unique(known[~(found | marks)].astype(str))]
        raise DataError(
            f"{path}: --task regression, but the label '{written.name}' is no number: "
            f"{listed(odd, 3)}."
        )
    if task == "regression" or (task == "auto" and quantity and not few):
        there[there] = found
        return Labels(there, values[found], "regression")
    y, classes = class_codes(path, known)
    return Labels(there, y, "classification", classes)


def named_labels(path: Path, written: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a class [rows], and the names of these.

    Only an empty cell is missing: a class may be called None.

    Raises `DataError` if these are no names.
    """
    written = _stripped(written)
    there = _has_label(written)
    known = written[there]
    _check_values(path, known)
    return there, _class_names(known)


def quantities(path: Path, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a label [rows], and the numbers that these are, NaN for what is none.

    Raises `DataError` if these are no values.
    """
    column = _stripped(column)
    there = _has_label(column)
    known = column[there]
    _check_values(path, known)
    marks = known.isin(MISSING).to_numpy()
    there[there] = ~marks
    return there, _numbers(known[~marks])


def class_codes(path: Path, known: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices, and the names of the classes: sorted as numbers if all are."""
    _check_values(path, known)
    names = _class_names(known)
    several = np.array(sorted(set(names)), object)
    values = as_numbers(pd.Series(several, dtype=object))
    if np.isfinite(values).all():
        several = several[np.argsort(values, kind="stable")]
    place = {name: i for i, name in enumerate(several)}
    return np.array([place[name] for name in names], np.int32), tuple(several)


def _has_label(column: pd.Series) -> np.ndarray:
    return ~(column.isna() | column.map(lambda cell: isinstance(cell, str) and not cell)).to_numpy(
        bool
    )


def _stripped(column: pd.Series) -> pd.Series:
    """Without blanks around text."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    if not _may_be_text(column):
        return column
    cells = [cell.strip() if isinstance(cell, str) else cell for cell in column]
    return pd.Series(cells, dtype=object, name=column.name, index=column.index)


def _may_be_text(column: pd.Series) -> bool:
    return column.dtype == object or pd.api.types.is_string_dtype(column.dtype)


def _numbers(known: pd.Series) -> np.ndarray:
    """Numbers, and NaN for what is none; of text that is plainly so, or of numbers of any type."""
    if is_number(known):
        return as_numbers(known)
    kinds = (str, int, float, decimal.Decimal, np.number)
    if _may_be_text(known) and not any(
        isinstance(value, bool) or not isinstance(value, kinds) for value in known
    ):
        return as_numbers(known)
    return np.full(len(known), np.nan)


def _check_values(path: Path, known: pd.Series) -> None:
    if not _may_be_text(known) and known.dtype.kind in "biufcMm":
        return
    for value in known:
        if not isinstance(value, VALUES) or isinstance(value, np.void):
            raise DataError(
                f"{path}: the label '{known.name}' holds {type(value).__name__}s; give it as "
                "numbers or text."
            )


VALUES = (str, bytes, float, int, np.generic, datetime.date, datetime.time, decimal.Decimal)


def _class_names(known: pd.Series) -> np.ndarray:
    if _may_be_text(known):
        return np.array([_class_name(value) for value in known], object)
    values, codes = np.unique(known.to_numpy(), return_inverse=True)
    return np.array([_class_name(value) for value in values], object)[codes]


def _class_name(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return plain(str(value))
