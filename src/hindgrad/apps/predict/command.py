"""`hindgrad predict`: the answers of a kept model for other rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.datasets import DataError
from hindgrad.apps.predict.rows import labels_for, read_rows
from hindgrad.apps.predict.settings import Predict
from hindgrad.apps.saved import Model, load, softmax
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.tables.uses import check_read
from hindgrad.apps.tables.words import counted, listed
from hindgrad.apps.tables.written import plain
from hindgrad.files import write_whole


def run(settings: Predict, console: Console) -> None:
    """Runs the command: writes the predictions, and says how they agree with labels."""
    settings.check()
    model = load(settings.model)
    frame, label = read_rows(settings.data, model)
    truth = None if label is None else labels_for(settings.data, model, label)
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
