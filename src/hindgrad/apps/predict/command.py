"""`hindgrad predict`: the answers of a kept model for other rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.datasets import NAMES, DataError
from hindgrad.apps.datasets import load as load_dataset
from hindgrad.apps.predict.settings import Predict
from hindgrad.apps.saved import Model, load, softmax
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.tables.formats import array_column, read_source
from hindgrad.apps.tables.labels import named_labels, quantities
from hindgrad.apps.tables.numerals import with_points
from hindgrad.apps.tables.source import Arrays
from hindgrad.apps.tables.uses import check_read, written_label
from hindgrad.apps.tables.words import counted, listed
from hindgrad.apps.tables.written import as_written, plain, stripped
from hindgrad.files import write_whole


def run(settings: Predict, console: Console) -> None:
    """Runs the command: writes the predictions, and says how they agree with labels."""
    settings.check()
    model = load(settings.model)
    frame, label = _rows(settings.data, model)
    truth = None if label is None else _truth(settings.data, model, label)
    try:
        coded = model.code(frame)
    except DataError as error:
        raise DataError(f"{settings.data}: {error}") from error
    check_read(settings.data, coded)
    outputs = model.outputs(coded)
    answers = _answers(model, outputs)
    try:
        write_whole(settings.out, _content(answers, settings.out))
    except OSError as error:
        raise ArgumentError(f"--out {settings.out}: {error.strerror or error}.") from error
    unread = [f"Taken for missing: {listed(list(map(str, coded.unread)))}."] if coded.unread else []
    agreement = [] if truth is None else _agreement(model, truth, outputs)
    say(
        console,
        [f"{counted(len(frame), 'row')} of {settings.data}: {settings.out}", *unread, *agreement],
    )


def _rows(data: Path, model: Model) -> tuple[pd.DataFrame, pd.Series | None]:
    """The rows, and their labels if they are there."""
    if str(data) in NAMES:
        given = load_dataset(str(data))
        frame = pd.DataFrame(given.x, columns=[f"x{i}" for i in range(given.x.shape[1])])
        return frame, pd.Series(np.array(given.classes)[given.y], name=model.label)
    if not data.exists():
        raise DataError(f"{data}: no such file, and no built-in data set of that name.")
    source = stripped(read_source(data))
    frame, label = source.frame, None
    if not len(frame):
        raise DataError(f"{data}: there are columns, but no rows.")
    if isinstance(source.origin, Arrays):
        if model.label in source.origin.arrays:
            label = array_column(data, source, model.label)
    elif model.label in frame.columns:
        label = written_label(source, model.label)
        if model.label in source.comma and not model.classes:
            label = label.map(lambda cell: with_points(cell, True), na_action="ignore")
    texts = [
        column.name
        for column in model.table_columns
        if column.kind in ("category", "text") and column.name in frame.columns
    ]
    return frame.assign(**{name: as_written(source, name) for name in texts}), label


def _truth(data: Path, model: Model, label: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a label, and these."""
    return named_labels(data, label) if model.classes else quantities(data, label)


def _answers(model: Model, outputs: np.ndarray) -> pd.DataFrame:
    if not model.classes:
        return pd.DataFrame({model.label: model.target_mean + model.target_std * outputs[:, 0]})
    columns = {model.label: model.named(outputs.argmax(axis=1))}
    for name, column in zip(model.classes, softmax(outputs).T, strict=True):
        title = f"probability of {name}"
        columns[f"{title}.1" if title == model.label else title] = column
    return pd.DataFrame(columns)


def _content(answers: pd.DataFrame, out: Path) -> bytes:
    if out.suffix.lower() == ".parquet":
        return answers.to_parquet()
    return answers.to_csv(index=False).encode()


def _agreement(
    model: Model, truth: tuple[np.ndarray, np.ndarray], outputs: np.ndarray
) -> Iterator[str]:
    """How right the answers are, on the rows whose labels are there."""
    there, labels = truth
    if not len(labels):
        return
    if model.classes:
        names = np.array([plain(name) for name in model.classes], object)
        rows = f"on the {counted(len(labels), 'row')} with '{model.label}'"
        yield f"Error {rows}: {np.mean(names[outputs[there].argmax(axis=1)] != labels):.4f}."
        unknown, counts = np.unique(labels[~np.isin(labels, names)].astype(str), return_counts=True)
        if len(unknown):
            many = [f"'{n}' ({count:,})" for n, count in zip(unknown, counts, strict=True)]
            yield f"Counted as wrong: classes that the model does not have, {listed(many)}."
        return
    said = model.target_mean + model.target_std * outputs[there, 0]
    numbers = np.isfinite(labels)
    right, odd = int(numbers.sum()), int((~numbers).sum())
    if odd:
        yield f"Labels '{model.label}' that are no numbers: {odd:,}."
    if right:
        wrong = (said - labels)[numbers]
        rows = f"on the {counted(right, 'row')} with '{model.label}'"
        yield f"RMSE {rows}: {np.sqrt(np.mean(wrong**2)):.5g}."
