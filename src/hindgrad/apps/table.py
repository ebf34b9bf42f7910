"""Reading a table of examples with a label: a file as people have it, or a built-in data set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hindgrad.apps import datasets
from hindgrad.apps.datasets import DataError as DataError
from hindgrad.apps.tables import bends
from hindgrad.apps.tables.columns import Coded, Column, as_numbers, code, code_like
from hindgrad.apps.tables.encoder import Encoder, Fitted, Moment, Number
from hindgrad.apps.tables.formats import read_source
from hindgrad.apps.tables.labels import Kind as Kind
from hindgrad.apps.tables.labels import labels_of, named_labels
from hindgrad.apps.tables.leave import NOTHING, find_left_out, told
from hindgrad.apps.tables.names import FEW as FEW
from hindgrad.apps.tables.numerals import MISSING, with_points
from hindgrad.apps.tables.source import Arrays, Origin, Source
from hindgrad.apps.tables.uses import (
    Asked,
    apart,
    check_finite,
    check_groups,
    check_read,
    groups_of,
    label_note,
    missing_notes,
    together,
)
from hindgrad.apps.tables.words import listed, quoted

MIN_ROWS = 20
MIN_ROWS_PER_CLASS = 3
"""Classes of fewer rows are not in every part of a split."""

GROUPS = {"phoneme": "speaker", "omniglot": "drawer"}
"""What the rows of built-in data sets are kept together by."""


@dataclass(frozen=True)
class Table:
    """Examples with labels."""

    name: str
    x: np.ndarray
    """The columns to learn from, floats [rows, features], as `Coded` has them: in float64 from
    files, as float32 would merge values such as times in milliseconds."""
    y: np.ndarray
    """int32 class indices, or float64 targets."""
    kind: Kind
    classes: tuple[str, ...]
    """The names of the classes; empty for a regression."""
    features: tuple[str, ...]
    label: str
    image: tuple[int, ...] | None = None
    """The shape of a row as an image, if it is one."""
    columns: tuple[Column, ...] = ()
    """What each feature is; numbers unless given."""
    groups: np.ndarray | None = None
    """Numbers of the groups of rows [rows] that are on one side of every split."""
    rows: np.ndarray | None = None
    """The numbers of these rows in the file, from 0; all of them, in order, unless given."""
    origin: Origin | None = None
    """The file, to be written again."""
    notes: tuple[str, ...] = ()
    """What was found out and decided while reading, in words; the label first."""

    @cached_property
    def coded(self) -> Coded:
        """The features with what they are."""
        return Coded(self.columns or tuple(Column(name) for name in self.features), self.x)

    @cached_property
    def encoder(self) -> Encoder:
        """How a row becomes the numbers that a network takes."""
        return Encoder.of(self.coded.columns, self.x, len(self.classes))

    @cached_property
    def bendable(self) -> tuple[int, ...]:
        """Which of the numbers `bends.Bends` has more to say of."""
        found, place = [], 0
        for part, values in zip(self.encoder.parts, self.x.T, strict=True):
            known = values[~np.isnan(values)]
            if isinstance(part, Number | Moment) and len(np.unique(known)) > bends.DISTINCT:
                found.append(place)
            place += len(part.all_names)
        few = len(found) <= bends.MOST_COLUMNS
        small = len(self.y) * bends.added(len(found)) <= bends.MOST_NUMBERS
        return tuple(found) if self.image is None and few and small else ()

    @property
    def counts(self) -> list[int]:
        """The rows of each class; none of a quantity."""
        if self.kind == "regression":
            return []
        return np.bincount(self.y, minlength=len(self.classes)).tolist()

    @property
    def inputs(self) -> int:
        """How many numbers a row is to a network, bent."""
        return self.encoder.width + bends.added(len(self.bendable))

    def encoded(self, pool: np.ndarray) -> tuple[np.ndarray, Fitted]:
        """All rows as numbers [rows, encoder.width], fitted on those of the pool alone."""
        fitted, own = self.encoder.fit(self.x[pool], self.y[pool])
        numbers = fitted.transform(self.coded)
        if numbers is not self.x:
            numbers[pool] = own
        return numbers, fitted

    @property
    def numbers(self) -> np.ndarray:
        """The numbers of the rows in the file."""
        return np.arange(len(self.y)) if self.rows is None else self.rows

    def fingerprint(self) -> str:
        """A checksum of the contents."""
        digest = hashlib.sha256(repr((self.classes, self.features, self.x.shape)).encode())
        if self.columns:
            digest.update(repr(self.columns).encode())
        for array in (self.x, self.y, self.groups):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]


def read(data: str, *, rows: int | None = None, seed: int = 0, **asked: Any) -> Table:
    """Reads a table, checked so that it can be trained on.

    **Arguments:**

    - `data`: a built-in name, or the path of a file.
    - `rows`: how many rows to take, drawn at random by `seed`; all unless given.
    - `label`: the label's column (or array of an npz); found by its name or place unless given.
    - `task`: whether the label is a class or a quantity; `auto` takes text, and whole numbers of
      at most 20 values, for classes.
    - `drop`: columns to leave out.
    - `keep`: columns to learn from even if they look like ids, or give the label away.
    - `group`: a column whose values are kept on one side of every split.

    Raises `DataError`, whose message is one line, if the data cannot be used.
    """
    table = read_any(data, **asked)
    if rows is not None:
        table = _sample(table, rows, seed)
    return _checked(table)


def read_as_asked(settings: Any) -> Table:
    """The table that a command's settings name: `read` with those of its arguments they have."""
    names = ("label", "task", "drop", "keep", "group", "rows", "seed")
    options = {name: getattr(settings, name) for name in names if hasattr(settings, name)}
    return read(settings.data, **options)


def read_any(data: str, **asked: Any) -> Table:
    """Reads a table like `read`, also one too small to be trained on."""
    if data in datasets.NAMES:
        return _builtin(data, Asked(**asked))
    path = Path(data)
    if not path.exists():
        raise DataError(
            f"{path}: no such file, and no built-in data set of that name "
            f"({', '.join(datasets.NAMES)})."
        )
    asked_for = Asked(**asked)
    return _from_source(path, read_source(path, asked_for.named), asked_for)


def read_like(data: str, table: Table, **asked: Any) -> Table:
    """The rows of another file, with the columns and the classes of a table.

    Raises `DataError` if it lacks a column, or has classes that the table does not have.
    """
    path = Path(data)
    if not path.exists():
        raise DataError(f"{path}: no such file.")
    known = (*table.features, table.label)
    _, frame, written, _ = apart(path, read_source(path, known), Asked(**asked))
    there, names = named_labels(path, written)
    check_columns(path, list(frame.columns), table.features)
    coded = code_like(frame.loc[there].reset_index(drop=True), table.coded.columns)
    check_read(path, coded)
    unknown = sorted(set(names) - set(table.classes))
    if unknown:
        raise DataError(f"{path} has the class '{unknown[0]}', which the data does not have.")
    place = {name: i for i, name in enumerate(table.classes)}
    y = np.array([place[name] for name in names], np.int32)
    columns = coded.columns if table.columns else ()
    return replace(table, x=coded.x, y=y, columns=columns, groups=None, rows=None)


def check_columns(where: object, there: Sequence[str], wanted: Sequence[str]) -> None:
    """Raises `DataError` naming the columns that are wanted and not there."""
    absent = [name for name in wanted if name not in there]
    if absent:
        raise DataError(f"{where} has other columns than the data: there is no {quoted(absent)}.")


def check_classes(table: Table, command: str) -> None:
    """Raises `DataError` if the label is not a class."""
    if table.kind == "regression":
        raise DataError(
            f"{table.name}: the label '{table.label}' is a quantity ({len(np.unique(table.y))} "
            f"values), and {command} is for classes; add --task classification if these are "
            "classes, or name another column with --label."
        )


def strata(table: Table) -> np.ndarray:
    """The groups that every part of a split should hold in proportion: the classes, or for a
    regression up to 10 quantiles of the target."""
    if table.kind == "classification":
        return table.y
    count = min(10, len(table.y) // 10)
    edges = np.quantile(table.y, np.linspace(0, 1, count + 1)[1:-1])
    return np.unique(np.searchsorted(edges, table.y), return_inverse=True)[1].astype(np.int32)


def _builtin(name: str, asked: Asked) -> Table:
    for option, value in (("label", asked.label), ("drop", asked.drop), ("keep", asked.keep)):
        if value:
            raise DataError(f"--{option} is for files; the built-in '{name}' has fixed columns.")
    if asked.task == "regression":
        raise DataError(f"--task regression does not fit the built-in '{name}', which has classes.")
    data = datasets.load(name)
    group = asked.group or GROUPS.get(name)
    if group is not None and group not in data.groups:
        known = quoted(list(data.groups)) if data.groups else "none"
        raise DataError(f"--group names '{group}', which '{name}' does not have; it has {known}.")
    groups = None if group is None else pd.factorize(data.groups[group])[0].astype(np.int32)
    words = () if group is None else (together(group, groups),)
    return Table(
        name,
        data.x.astype(np.float32),
        data.y.astype(np.int32),
        "classification",
        data.classes,
        tuple(f"x{i}" for i in range(data.x.shape[1])),
        "y",
        data.image,
        groups=groups,
        origin=Arrays(
            {"x": data.x.reshape(-1, *(data.image or data.x.shape[1:])), "y": data.y}, len(data.y)
        ),
        notes=words,
    )


def _from_source(path: Path, source: Source, asked: Asked) -> Table:
    choice, frame, written, numbers = apart(path, source, asked)
    if choice.name in source.comma:
        numbers = numbers.map(lambda cell: with_points(cell, True), na_action="ignore")
    kept = frame.columns.difference([*asked.drop, choice.name], sort=False)
    kept = [name for name in kept if name != asked.group]
    if not kept:
        raise DataError(f"{path}: there is no column but the label '{choice.name}'.")
    labels = labels_of(path, written, numbers, asked.task)
    there, y, kind, classes = labels.there, labels.y, labels.kind, labels.classes
    if not len(y):
        raise DataError(f"{path}: there are columns, but no rows.")
    coded = code(frame.loc[there, kept].reset_index(drop=True), source.comma)
    check_finite(path, coded)
    left = dict(find_left_out(coded, y, choice.name, kind == "regression"))
    left = {name: why for name, why in left.items() if name not in asked.keep}
    only = ()
    if len(left) == len(kept):  # with nothing else to learn from, learn from these
        only = tuple(f"Kept, as there is nothing else: '{n}' ({w})." for n, w in left.items())
        left = {name: why for name, why in left.items() if why == NOTHING}
    if len(left) == len(kept):
        raise DataError(f"{path}: there is no value in any column but the label '{choice.name}'.")
    used = [i for i, name in enumerate(kept) if name not in left]
    columns = tuple(coded.columns[i] for i in used)
    numbers = all(column == Column(column.name) for column in columns)
    groups, words = groups_of(frame, asked.group, there)
    check_groups(path, groups, y, asked.group)
    return Table(
        path.name.split(".")[0] or path.name,
        np.ascontiguousarray(coded.x[:, used]),
        y,
        kind,
        classes,
        tuple(column.name for column in columns),
        choice.name,
        None if asked.drop or left else source.image,
        columns=() if numbers else columns,
        groups=groups,
        rows=None if there.all() else np.flatnonzero(there),
        origin=source.origin,
        notes=(
            label_note(choice, kind, classes, y),
            *source.notes,
            *coded.notes,
            *missing_notes(coded, len(there) - len(y), choice.name),
            *told(left),
            *only,
            *words,
        ),
    )


def _sample(table: Table, rows: int, seed: int) -> Table:
    if rows > len(table.y):
        raise DataError(f"--rows {rows} is more than the {len(table.y)} rows of '{table.name}'.")
    taken = np.sort(np.random.default_rng(seed).permutation(len(table.y))[:rows])
    groups = None if table.groups is None else table.groups[taken]
    return replace(
        table, x=table.x[taken], y=table.y[taken], groups=groups, rows=table.numbers[taken]
    )


def _or_quantity(classes: Sequence[str]) -> str:
    """What to do if classes are numbers."""
    marks = [name in MISSING for name in classes]
    numbers = np.isfinite(as_numbers(pd.Series(classes, dtype=object)))
    return ", or use --task regression if it is a quantity" if np.all(marks | numbers) else ""


def _checked(table: Table) -> Table:
    """The table, with a word on what it is too small for.

    Raises `DataError` if nothing can be learned from it.
    """
    where = f"{table.name}: the label '{table.label}'"
    if len(table.y) < MIN_ROWS:
        raise DataError(
            f"{table.name}: {len(table.y)} rows are too few to split three ways; at least "
            f"{MIN_ROWS} are needed."
        )
    if table.groups is not None and len(np.unique(table.groups)) < MIN_ROWS_PER_CLASS:
        raise DataError(f"{table.name}: --group makes fewer than {MIN_ROWS_PER_CLASS} groups.")
    if table.kind == "regression":
        if np.ptp(table.y) == 0:
            raise DataError(f"{where} has the same value, {table.y[0]:g}, in every row.")
        return table
    counts = np.bincount(table.y, minlength=len(table.classes))
    if np.count_nonzero(counts) < 2:
        raise DataError(
            f"{where} has one class only, '{table.classes[int(counts.argmax())]}'; at least two "
            "are needed."
        )
    if counts.max() < MIN_ROWS_PER_CLASS:
        raise DataError(
            f"{where} has {len(counts)} classes in {len(table.y)} rows; name another column with "
            f"--label{_or_quantity(table.classes)}."
        )
    rare = [
        f"'{name}' ({count})"
        for name, count in zip(table.classes, counts, strict=True)
        if 0 < count < MIN_ROWS_PER_CLASS
    ]
    if not rare:
        return table
    note = f"Classes of too few rows to be in every part of a split: {listed(rare)}."
    return replace(table, notes=(*table.notes, note))
