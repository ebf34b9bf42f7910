"""Which rows are asked about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hindgrad.apps.datasets import DataError
from hindgrad.apps.explain.rows import Shown
from hindgrad.apps.explain.settings import check_most
from hindgrad.apps.explain.start import Start
from hindgrad.apps.model import Problem, Standard
from hindgrad.apps.predict.rows import labels_for, read_rows
from hindgrad.apps.saved import Model
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.table import Table
from hindgrad.apps.tables.columns import Coded
from hindgrad.apps.tables.uses import check_finite, check_read
from hindgrad.apps.tables.words import listed
from hindgrad.apps.tables.written import plain

Part = Literal["test", "train", "new"]


@dataclass(frozen=True)
class Query:
    """One row that is asked about."""

    row: int
    """Its number in the table, or in the other one."""
    part: Part
    """Where it is: among those to test on, those trained on, or in another table."""
    right: int | float | None
    """Its class, or value; None if it is not known."""
    label: str
    """The same as it is written; empty if there is none."""

    @property
    def name(self) -> str:
        return f"new row {self.row}" if self.part == "new" else f"row {self.row}"


@dataclass(frozen=True)
class Questions:
    """The rows that are asked about, or may be."""

    x: np.ndarray
    """As the network takes them, [rows, features]."""
    queries: tuple[Query, ...]
    shown: Shown

    def take(self, places: Sequence[int]) -> "Questions":
        """Some of them."""
        rows = list(places)
        coded, pictures = self.shown.coded, self.shown.pictures
        taken = replace(coded, x=coded.x[rows])
        shown = Shown(taken, None if pictures is None else pictures[rows])
        return Questions(self.x[rows], tuple(self.queries[i] for i in rows), shown)


def named(start: Start, problem: Problem, numbers: Sequence[int]) -> Questions:
    """The rows of these numbers in the file.

    Raises `ArgumentError` if one is not there.
    """
    places = {int(number): i for i, number in enumerate(start.table.numbers)}
    absent = [number for number in numbers if number not in places]
    if absent:
        raise ArgumentError(_absent(start.table, absent[0]))
    return _of_table(start, problem, [places[number] for number in numbers])


def tested(start: Start, problem: Problem) -> Questions:
    """All rows to test on."""
    return _of_table(start, problem, start.tested)


def other(path: Path, start: Start, standard: Standard) -> Questions:
    """All rows of another table.

    Raises `DataError` or `ArgumentError` if it cannot be read, or not as the first.
    """
    table = start.table
    scale = (standard.target_mean, standard.target_std)
    std = standard.std
    model = Model(standard.columns, standard.mean, std, (), table.label, table.classes, *scale)
    try:
        frame, label = read_rows(path, model)
        check_most(f"--new {path}", len(frame))
        coded = model.code(frame)
        check_read(path, coded)
        check_finite(path, coded)
        there, labels = (np.zeros(len(frame), bool), np.array([]))
        if label is not None:
            there, labels = labels_for(path, model, label)
    except DataError as error:
        raise DataError(f"--new: {error}") from error
    known = dict(zip(np.flatnonzero(there).tolist(), labels.tolist(), strict=True))
    queries = [_new(table, i, known.get(i)) for i in range(len(frame))]
    x = standard.features(standard.columns.transform(coded))
    return Questions(x, tuple(queries), Shown.of(coded, table.image, table.x))


def _new(table: Table, row: int, label: str | float | None) -> Query:
    if label is None:
        return Query(row, "new", None, "")
    if table.kind == "regression":
        right = float(label) if np.isfinite(float(label)) else None
        return Query(row, "new", right, "" if right is None else f"{right:.10g}")
    names = [plain(name) for name in table.classes]
    code = names.index(str(label)) if str(label) in names else None
    return Query(row, "new", code, str(label))


def _of_table(start: Start, problem: Problem, places: Sequence[int] | np.ndarray) -> Questions:
    """Rows of the table, by their places in it."""
    table, places = start.table, np.asarray(places, int)
    among = {int(place): i for i, place in enumerate(np.concatenate([start.pool, start.tested]))}
    x = np.concatenate([np.asarray(problem.pool.x), np.asarray(problem.test.x)])
    queries = []
    for place in places.tolist():
        part: Part = "train" if among[place] < len(start.pool) else "test"
        right = table.y[place].item()
        queries.append(Query(int(table.numbers[place]), part, right, label_of(table, right)))
    coded = Coded(table.coded.columns, table.x[places])
    shown = Shown.of(coded, table.image, table.x)
    return Questions(x[[among[place] for place in places.tolist()]], tuple(queries), shown)


def label_of(table: Table, y: int | float) -> str:
    """A label as it is written."""
    return table.classes[int(y)] if table.kind == "classification" else f"{y:.10g}"


def _absent(table: Table, number: int) -> str:
    whole = len(table.numbers) if table.origin is None else table.origin.rows
    if number >= whole:
        return (
            f"--rows: there is no row {number}; the rows of '{table.name}' are 0 to {whole - 1}, "
            "without the header."
        )
    why = f"it has no label '{table.label}', or --sample left it out"
    near = listed([str(n) for n in table.numbers[:3]])
    return (
        f"--rows: row {number} is not among those that are learned from and tested on ({near}, …): "
        f"{why}. Put it into a file of its own, and name that with --new."
    )
