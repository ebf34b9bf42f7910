"""Reading a table of examples with a label from CSV, Parquet, NPZ, or a built-in data set."""

import datetime
import decimal
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from hindgrad.apps import datasets
from hindgrad.apps.datasets import DataError as DataError
from hindgrad.apps.readers import listed, quoted, read_csv, read_npz, read_parquet

Kind = Literal["classification", "regression"]
Task = Literal["auto", "classification", "regression"]

FEW = 20
"""Integer labels with at most this many values are taken for classes."""

MIN_ROWS = 20
MIN_ROWS_PER_CLASS = 3


@dataclass(frozen=True)
class Table:
    """Examples with labels."""

    name: str
    x: np.ndarray
    """Features, floats [rows, features]: in float64 from files, as float32 would merge values such
    as times in milliseconds."""
    y: np.ndarray
    """int32 class indices, or float64 targets."""
    kind: Kind
    classes: tuple[str, ...]
    """The names of the classes; empty for a regression."""
    features: tuple[str, ...]
    label: str
    image: tuple[int, ...] | None = None
    """The shape of a row as an image, if it is one."""

    def fingerprint(self) -> str:
        """A checksum of the contents."""
        digest = hashlib.sha256(repr((self.classes, self.features, self.x.shape)).encode())
        digest.update(np.ascontiguousarray(self.x).tobytes())
        digest.update(np.ascontiguousarray(self.y).tobytes())
        return digest.hexdigest()[:16]


def read(
    data: str,
    *,
    label: str | None = None,
    task: Task = "auto",
    drop: Sequence[str] = (),
    rows: int | None = None,
    seed: int = 0,
) -> Table:
    """Reads a table, checked so that it can be trained on.

    **Arguments:**

    - `data`: a built-in name, or the path of a .csv, .parquet or .npz file.
    - `label`: the label's column (or array of an npz); found by its name unless given.
    - `task`: whether the label is a class or a quantity; `auto` takes text, and integers of at
      most 20 values, for classes.
    - `drop`: columns to leave out.
    - `rows`: how many rows to take, drawn at random by `seed`; all unless given.

    Raises `DataError`, whose message is one line, if the data cannot be used.
    """
    table = read_any(data, label=label, task=task, drop=drop)
    if rows is not None:
        table = _sample(table, rows, seed)
    _check_labels(table)
    return table


def read_as_asked(settings: Any) -> Table:
    """The table that a command's settings name: `read` with those of its arguments they have."""
    names = ("label", "task", "drop", "rows", "seed")
    options = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return read(settings.data, **options)


def read_any(
    data: str, *, label: str | None = None, task: Task = "auto", drop: Sequence[str] = ()
) -> Table:
    """Reads a table like `read`, also one too small to be trained on."""
    if data in datasets.NAMES:
        return _builtin(data, label, task, drop)
    return _from_file(Path(data), label, task, drop)


def check_classes(table: Table, command: str) -> None:
    """Raises `DataError` if the label is not a class."""
    if table.kind == "regression":
        raise DataError(
            f"{table.name}: the label '{table.label}' is a quantity ({len(np.unique(table.y))} "
            f"values), and {command} is for classes; add --task classification if these are "
            "classes."
        )


def strata(table: Table) -> np.ndarray:
    """The groups that every part of a split should hold in proportion: the classes, or for a
    regression up to 10 quantiles of the target."""
    if table.kind == "classification":
        return table.y
    count = min(10, len(table.y) // 10)
    edges = np.quantile(table.y, np.linspace(0, 1, count + 1)[1:-1])
    return np.unique(np.searchsorted(edges, table.y), return_inverse=True)[1].astype(np.int32)


def _builtin(name: str, label: str | None, task: Task, drop: Sequence[str]) -> Table:
    for option, value in (("--label", label), ("--drop", drop)):
        if value:
            raise DataError(f"{option} is for files; the built-in '{name}' has fixed columns.")
    if task == "regression":
        raise DataError(f"--task regression does not fit the built-in '{name}', which has classes.")
    data = datasets.load(name)
    features = tuple(f"x{i}" for i in range(data.x.shape[1]))
    y = data.y.astype(np.int32)
    return Table(
        name,
        data.x.astype(np.float32),
        y,
        "classification",
        data.classes,
        features,
        "y",
        data.image,
    )


def _from_file(path: Path, label: str | None, task: Task, drop: Sequence[str]) -> Table:
    readers = {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz}
    reader = readers.get(path.suffix.lower())
    if not path.exists():
        raise DataError(
            f"{path}: no such file, and no built-in data set of that name "
            f"({', '.join(datasets.NAMES)})."
        )
    if reader is None or not path.is_file():
        raise DataError(f"{path}: not a .csv, .parquet or .npz file.")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    frame, found, image = reader(path, label, drop)
    absent = [column for column in drop if column not in frame.columns]
    if absent:
        raise DataError(f"{path}: --drop names {quoted(absent)}, which the data does not have.")
    if found in drop:
        raise DataError(f"{path}: --drop names the label '{found}'.")
    frame = frame.drop(columns=list(drop))
    features = [column for column in frame.columns if column != found]
    if not features:
        raise DataError(f"{path}: there is no column but the label '{found}'.")
    if len(frame) == 0:
        raise DataError(f"{path}: there are columns, but no rows.")
    _check_missing(path, frame)
    x = _features(path, frame.drop(columns=found))
    y, kind, classes = _labels(path, pd.Series(frame[found]), task)
    image = None if drop else image
    return Table(path.stem, x, y, kind, classes, tuple(features), found, image)


def _check_missing(path: Path, frame: pd.DataFrame) -> None:
    missing = frame.isna().to_numpy().sum(axis=0)
    if missing.any():
        counts = _counted(frame, missing)
        raise DataError(
            f"{path}: missing values in {listed(counts)}; fill them in, or leave those rows out, "
            "or --drop the columns."
        )


def _features(path: Path, frame: pd.DataFrame) -> np.ndarray:
    text = [str(name) for name, column in frame.items() if not _is_number(column)]
    if text:
        raise DataError(
            f"{path}: columns that are not numbers: {quoted(text)}; encode them as numbers or "
            "--drop them."
        )
    values = frame.to_numpy(np.float64)
    bad = ~(np.abs(values) < np.finfo(np.float32).max)
    if bad.any():
        counts = listed(_counted(frame, bad.sum(axis=0)))
        raise DataError(f"{path}: infinite or too large values in {counts}; fix or --drop.")
    return values


def _labels(path: Path, column: pd.Series, task: Task) -> tuple[np.ndarray, Kind, tuple[str, ...]]:
    number = _is_number(column) and not pd.api.types.is_bool_dtype(column)
    if number and not np.all(np.abs(column.to_numpy(np.float64)) < np.finfo(np.float32).max):
        raise DataError(f"{path}: infinite or too large values in the label '{column.name}'.")
    if task == "auto":
        values = column.unique() if number else []
        few = len(values) <= FEW and bool(np.all(np.mod(np.asarray(values), 1) == 0))
        task = "classification" if few else "regression"
    if task == "classification":
        y, classes = _codes(path, column)
        return y, "classification", classes
    if not number:
        raise DataError(f"{path}: --task regression, but the label '{column.name}' is no number.")
    return column.to_numpy(np.float64), "regression", ()


def _codes(path: Path, column: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
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


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_complex_dtype(column)


def _sample(table: Table, rows: int, seed: int) -> Table:
    if rows > len(table.y):
        raise DataError(f"--rows {rows} is more than the {len(table.y)} rows of '{table.name}'.")
    taken = np.sort(np.random.default_rng(seed).permutation(len(table.y))[:rows])
    return replace(table, x=table.x[taken], y=table.y[taken])


def _check_labels(table: Table) -> None:
    where = f"{table.name}: the label '{table.label}'"
    if len(table.y) < MIN_ROWS:
        raise DataError(
            f"{table.name}: {len(table.y)} rows are too few to split three ways; at least "
            f"{MIN_ROWS} are needed."
        )
    if table.kind == "regression":
        if np.ptp(table.y) == 0:
            raise DataError(f"{where} has the same value, {table.y[0]:g}, in every row.")
        return
    counts = np.bincount(table.y, minlength=len(table.classes))
    if np.count_nonzero(counts) < 2:
        raise DataError(
            f"{where} has one class only, '{table.classes[int(counts.argmax())]}'; at least two "
            "are needed."
        )
    rare = [
        f"'{name}' ({count})"
        for name, count in zip(table.classes, counts, strict=True)
        if count < MIN_ROWS_PER_CLASS
    ]
    if rare:
        raise DataError(
            f"{where} has classes of fewer than {MIN_ROWS_PER_CLASS} rows: {listed(rare)}; leave "
            "them out or merge them, or use --task regression if it is a quantity."
        )


def _counted(frame: pd.DataFrame, counts: np.ndarray) -> list[str]:
    """The columns whose count is not zero, with it."""
    pairs = zip(frame.columns, counts, strict=True)
    return [f"{column} ({count})" for column, count in pairs if count]
