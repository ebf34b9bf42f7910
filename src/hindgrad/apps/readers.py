"""Columns from files: CSV, Parquet and NPZ, as they are in them."""

import csv
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError

LABELS = ("label", "target", "y", "class")
"""The names by which a label column is recognised."""

PLAIN = "biuf"
"""The kinds of arrays that are numbers."""


class Columns(NamedTuple):
    """What a file holds."""

    frame: pd.DataFrame
    """Every column has a name of its own."""
    label: str
    image: tuple[int, ...] | None
    """The shape of a row as an image, if it is one."""


def read_csv(path: Path, label: str | None, drop: Sequence[str]) -> Columns:
    """Columns of text and numbers."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = next((row for row in csv.reader(file) if row), [])
        with warnings.catch_warnings():
            # Rows longer than the header are only warned of.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, low_memory=False, index_col=False)
    except Exception as error:
        raise DataError(f"{path}: not readable as CSV: {first_line(error)}") from error
    return _columns(path, frame, names, label, drop)


def read_parquet(path: Path, label: str | None, drop: Sequence[str]) -> Columns:
    """The columns of a Parquet file; an index is left aside."""
    try:
        frame = pd.read_parquet(path)
    except Exception as error:
        raise DataError(f"{path}: not readable as Parquet: {first_line(error)}") from error
    names = [str(column) for column in frame.columns]
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{path}: {count} columns are named '{name}'; rename them.")
    return _columns(path, frame, names, label, drop)


def read_npz(path: Path, label: str | None, drop: Sequence[str]) -> Columns:
    """The features x0, x1, … are the entries of the rows of the array x."""
    del drop
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise DataError(f"{path}: not readable as NPZ: {first_line(error)}") from error
    if "x" not in arrays:
        raise DataError(
            f"{path}: the features must be an array named x; found {quoted(list(arrays))}."
        )
    found = _find_label(path, [name for name in arrays if name != "x"], label)
    x, y = arrays["x"], arrays[found]
    for name, array, kinds in (("x", x, PLAIN), (found, y, PLAIN + "US")):
        if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
            what = array.dtype if isinstance(array, np.ndarray) else "no array"
            text = " or text" if "U" in kinds else ""
            raise DataError(f"{path}: {name} is {what}; give an array of numbers{text}.")
    if x.ndim < 2 or y.shape != x.shape[:1]:
        raise DataError(
            f"{path}: x has shape {x.shape} and {found} {y.shape}; x [rows, features] (or images "
            f"[rows, height, width]) and {found} [rows] are needed."
        )
    flat = _native(x).reshape(len(x), int(np.prod(x.shape[1:])))
    frame = pd.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])])
    if found in frame.columns:
        raise DataError(
            f"{path}: the label is named '{found}', as one of the features x0, x1, … of x; save it "
            "under another name."
        )
    frame[found] = _text(path, found, y) if y.dtype.kind == "S" else _native(y)
    return Columns(frame, found, tuple(x.shape[1:]) if x.ndim > 2 else None)


def _columns(
    path: Path, frame: pd.DataFrame, names: Sequence[str], label: str | None, drop: Sequence[str]
) -> Columns:
    """With each column's name as a text. Of two columns of one name in a CSV file, pandas calls
    the second a.1: that serves for features, but not where one of the two is meant."""
    frame = frame.set_axis([str(column) for column in frame.columns], axis=1)
    found = _find_label(path, list(frame.columns), label)
    for name in (found, *drop):
        if names.count(name) > 1:
            raise DataError(f"{path}: {names.count(name)} columns are named '{name}'; rename them.")
    return Columns(frame, found, None)


def _find_label(path: Path, columns: list[str], label: str | None) -> str:
    if label is not None:
        if label not in columns:
            raise DataError(
                f"{path}: there is no column '{label}' (--label); found {quoted(columns)}."
            )
        return label
    found = [column for column in columns if column.lower() in LABELS]
    if len(found) != 1:
        what = f"more than one label column, {quoted(found)}" if found else "no label column"
        raise DataError(f"{path}: {what}; name it with --label, one of {quoted(columns)}.")
    return found[0]


def _native(array: np.ndarray) -> np.ndarray:
    """In the machine's byte order, without which pandas mistakes values or refuses them."""
    return array.astype(array.dtype.newbyteorder("="))


def _text(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: {name} holds bytes that are no UTF-8; save it as text."
        ) from error


def quoted(names: Sequence[str]) -> str:
    """The names with commas, cut short if they are many."""
    return listed([f"'{name}'" for name in names])


def listed(items: Sequence[str], limit: int = 8) -> str:
    """The items with commas, cut short if they are many."""
    rest = len(items) - limit
    return ", ".join(items[:limit]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """What an error says, in one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
