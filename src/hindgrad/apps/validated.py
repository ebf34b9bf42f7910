"""Rows and labels as scikit-learn's estimators are given them."""

import numbers
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import check_array
from sklearn.utils.validation import column_or_1d, validate_data

from hindgrad.apps.settings import GREATEST
from hindgrad.apps.table import DataError
from hindgrad.apps.tables.columns import Coded, Column, code
from hindgrad.apps.tables.uses import check_finite
from hindgrad.apps.tables.words import counted, quoted


def is_count(value: Any, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and least <= int(value) <= GREATEST


def tagged(tags: Any) -> Any:
    """The tags of an estimator whose rows may have text and missing values."""
    tags.input_tags.allow_nan = True
    tags.input_tags.string = True
    tags.input_tags.categorical = True
    return tags


def validated(estimator: Any, X: Any, y: Any, *, numeric: bool = False) -> tuple[Coded, np.ndarray]:
    """Rows and labels, checked as scikit-learn's estimators do."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, skip_check_array=True)  # type: ignore[arg-type]
        for count, what in zip(X.shape, ("sample", "feature"), strict=True):
            if not count:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is "
                    f"required by {type(estimator).__name__}."
                )
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y {len(y)}; give a label for each row.")
        if numeric:
            y = check_array(y, ensure_2d=False, dtype="float64", input_name="y")
        coded = code(_named(X))
    else:
        options: dict[str, Any] = {"ensure_all_finite": "allow-nan", "y_numeric": numeric}
        X, y = validate_data(estimator, X, y, dtype=None, **options)
        coded = _coded_array(X)
    if pd.isna(y).any():
        count = counted(int(pd.isna(y).sum()), "row")
        raise ValueError(f"y contains NaN or None ({count}); leave these out.")
    if numeric and not np.all(np.abs(np.asarray(y, np.float64)) < np.finfo(np.float32).max):
        raise ValueError("y contains infinity or a value too large for float32; scale it.")
    return checked(coded), y


def checked(coded: Coded) -> Coded:
    """The same values. Raises `ValueError` if some are infinite or too large."""
    try:
        check_finite("X", coded)
    except DataError as error:
        raise ValueError(str(error)) from error
    return coded


def _coded_array(X: np.ndarray) -> Coded:
    names = [f"x{i}" for i in range(X.shape[1])]
    if X.dtype.kind in "biuf":
        return Coded(tuple(Column(name) for name in names), X.astype(np.float64))
    return code(pd.DataFrame(X, columns=names))


def _named(X: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in X.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"X has more than one column named {quoted(twice)}; rename them.")
    return X.set_axis(names, axis=1).reset_index(drop=True)
