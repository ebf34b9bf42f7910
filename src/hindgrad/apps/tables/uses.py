"""What the columns of a file are used for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.columns import Coded, is_number
from hindgrad.apps.tables.formats import array_column
from hindgrad.apps.tables.labels import Kind, Task
from hindgrad.apps.tables.names import LABELS, Choice, find_array, find_label
from hindgrad.apps.tables.source import Arrays, Source
from hindgrad.apps.tables.words import listed, quoted
from hindgrad.apps.tables.written import as_written, stripped


@dataclass(frozen=True)
class Asked:
    """Which columns are used, and for what."""

    label: str | None = None
    task: Task = "auto"
    drop: Sequence[str] = ()
    keep: Sequence[str] = ()
    group: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that were named."""
        return tuple(name for name in (self.label, self.group, *self.drop, *self.keep) if name)


def apart(
    path: Path, source: Source, asked: Asked
) -> tuple[Choice, pd.DataFrame, pd.Series, pd.Series]:
    """The label's choice, the frame without a label of an NPZ file, and the label's column: as it
    was written, where numbers do not tell all of it, and as the frame has it."""
    source = stripped(source)
    frame, named = source.frame, [name for name in (*asked.drop, *asked.keep) if name]
    both = [name for name in asked.keep if name in asked.drop]
    if both:
        raise DataError(f"{path}: --keep and --drop both name {quoted(both)}.")
    if isinstance(source.origin, Arrays):
        arrays = list(source.names[len(frame.columns) :])
        choice = find_array(path, arrays, asked.label)
        written = label = array_column(path, source, choice.name)
        if asked.group in arrays:
            frame = frame.assign(**{str(asked.group): array_column(path, source, asked.group)})
    else:
        aside = [name for name in (*asked.drop, asked.group) if name in frame.columns]
        others = frame if asked.label is not None else frame.drop(columns=aside)
        choice = find_label(path, others, asked.label, source.header)
        if choice.why and str(asked.group).strip().lower() in LABELS:
            raise DataError(
                f"{path}: --group names '{asked.group}', which looks like the label; name the "
                "label with --label."
            )
        label, written = pd.Series(frame[choice.name]), written_label(source, choice.name)
    for name in (choice.name, *named, *([asked.group] if asked.group else [])):
        if source.names.count(name) > 1:
            count = source.names.count(name)
            raise DataError(f"{path}: {count} columns are named '{name}'; rename them.")
    for option, wanted in (("drop", asked.drop), ("keep", asked.keep), ("group", [asked.group])):
        absent = [name for name in wanted if name and name not in frame.columns]
        if absent and absent != [choice.name]:
            raise DataError(
                f"{path}: --{option} names {quoted(absent)}, which the data does not have."
            )
        if choice.name in wanted:
            raise DataError(f"{path}: --{option} names the label '{choice.name}'.")
    return choice, frame, written, label


def written_label(source: Source, name: str) -> pd.Series:
    """A label's column, as text if numbers would make one of 01 and 1."""
    written, column = as_written(source, name), pd.Series(source.frame[name])
    if is_number(column) and not written.astype(str).str.fullmatch(r"\s*[+-]?0[0-9]+\s*").any():
        return column
    return written


def check_finite(where: object, coded: Coded) -> None:
    bad = np.abs(coded.x) >= np.finfo(np.float32).max
    if bad.any():
        counts = [
            f"{column.name} ({count})"
            for column, count in zip(coded.columns, bad.sum(axis=0), strict=True)
            if count
        ]
        raise DataError(
            f"{where}: infinite or too large values in {listed(counts)}; fix or --drop."
        )


def check_read(where: object, coded: Coded) -> None:
    """Raises `DataError` if no value of a column of numbers, dates or times is one."""
    for unread in coded.unread:
        if unread.count == unread.known and unread.column.kind != "category":
            raise DataError(f"{where}: {unread}; give them as in the table that was learned from.")


def groups_of(
    frame: pd.DataFrame, name: str | None, there: np.ndarray
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Numbers of the groups; a row without one is a group of its own."""
    if name is None:
        return None, ()
    values = frame.loc[there, name]
    values = values.where(~values.isin(["", None]), None) if values.dtype == object else values
    groups, _ = pd.factorize(values)
    alone = groups < 0
    groups[alone] = groups.max(initial=-1) + 1 + np.arange(alone.sum())
    groups = groups.astype(np.int32)
    return groups, (together(name, groups),)


def check_groups(where: object, groups: np.ndarray | None, y: np.ndarray, name: str | None) -> None:
    """Raises `DataError` if no class [rows] is in more than one group: what is tested or validated
    on would be of classes that were not trained on."""
    if groups is None or y.dtype.kind == "f":
        return
    pairs = len(np.unique(np.stack([groups, y]), axis=1).T)
    if pairs == len(np.unique(y)) > 1:
        raise DataError(
            f"{where}: --group '{name}' has each class in one group only, so that a class is "
            "trained on or tested on, never both; name another column."
        )


def together(name: str, groups: np.ndarray | None) -> str:
    assert groups is not None
    return f"Rows of one '{name}' stay together ({len(np.unique(groups)):,} groups)."


def label_note(choice: Choice, kind: Kind, classes: tuple[str, ...], y: np.ndarray) -> str:
    why = f" ({choice.why}; another: --label COLUMN)" if choice.why else ""
    if kind == "classification":
        return f"Label: '{choice.name}'{why}, {len(classes)} classes: {quoted(classes)}."
    return f"Label: '{choice.name}'{why}, a quantity from {y.min():.10g} to {y.max():.10g}."


def missing_notes(coded: Coded, unlabelled: int, label: str) -> list[str]:
    notes = []
    if unlabelled:
        rows = "1 row has" if unlabelled == 1 else f"{unlabelled:,} rows have"
        notes.append(f"{rows} no label '{label}' and are not learned from.")
    counts = np.isnan(coded.x).sum(axis=0)
    holes = [
        f"{column.name} ({count:,})"
        for column, count in zip(coded.columns, counts, strict=True)
        if count and column.kind != "nothing"
    ]
    if holes:
        notes.append(f"Missing values in {listed(holes)}: the median stands for a number.")
    if coded.told:
        notes.append(f"Taken for missing: {listed(coded.told)}.")
    return notes
