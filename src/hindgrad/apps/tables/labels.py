"""The label's values: classes, or a quantity."""

import datetime
import decimal
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.columns import as_numbers, is_number
from hindgrad.apps.tables.names import FEW
from hindgrad.apps.tables.text import MISSING

Kind = Literal["classification", "regression"]
Task = Literal["auto", "classification", "regression"]


def without_missing(label: pd.Series) -> tuple[np.ndarray, pd.Series]:
    """Which rows have a label, and their labels. Only an empty cell is missing: a class may be
    called None. But in a quantity, what stands for missing values is."""
    there = ~label.isna().to_numpy()
    if label.dtype != object and not pd.api.types.is_string_dtype(label.dtype):
        return there, label[there].reset_index(drop=True)
    values = label.astype(object).to_numpy()
    there &= np.array([not (isinstance(value, str) and value == "") for value in values], bool)
    known = pd.Series(values[there], dtype=object, name=label.name)
    if not len(known) or not all(isinstance(value, str) for value in known):
        return there, known
    numbers = as_numbers(known)
    found = np.isfinite(numbers)
    marks = known.isin(MISSING).to_numpy()
    if found.all() or (np.all(found | marks) and len(np.unique(numbers[found])) > FEW):
        there[there] = found
        return there, pd.Series(numbers[found], name=label.name)
    return there, known


def label_values(
    path: Path, column: pd.Series, task: Task
) -> tuple[np.ndarray, Kind, tuple[str, ...]]:
    number = is_number(column) and not pd.api.types.is_bool_dtype(column)
    if number and not np.all(np.abs(column.to_numpy(np.float64)) < np.finfo(np.float32).max):
        raise DataError(f"{path}: infinite or too large values in the label '{column.name}'.")
    if task == "auto":
        values = column.unique() if number else []
        few = len(values) <= FEW and bool(np.all(np.mod(np.asarray(values), 1) == 0))
        task = "classification" if few else "regression"
    if task == "classification":
        y, classes = class_codes(path, column)
        return y, "classification", classes
    if not number:
        raise DataError(f"{path}: --task regression, but the label '{column.name}' is no number.")
    return column.to_numpy(np.float64), "regression", ()


def class_codes(path: Path, column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices, and the names of the classes."""
    try:
        values, codes = np.unique(column.to_numpy(), return_inverse=True)
        classes = tuple(_class_name(value) for value in values)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{path}: the label '{column.name}' holds {type(column.iloc[0]).__name__}s; give it as "
            "numbers or text."
        ) from error
    if len(set(classes)) < len(classes):
        raise DataError(
            f"{path}: different values of the label '{column.name}' are written alike; give them "
            "as text."
        )
    return codes.astype(np.int32), classes


def _class_name(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if not isinstance(value, (str, float, int, np.generic, datetime.date, decimal.Decimal)):
        raise TypeError(type(value).__name__)
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)  # type: ignore[arg-type]
