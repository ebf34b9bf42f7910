"""`hindgrad predict`: the answers of a kept model for other rows."""

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
from hindgrad.apps.tables.columns import as_numbers
from hindgrad.apps.tables.formats import read_source
from hindgrad.apps.tables.labels import class_codes, without_missing
from hindgrad.apps.tables.source import Arrays
from hindgrad.files import write_whole


def run(settings: Predict, console: Console) -> None:
    """Runs the command: writes the predictions, and says how they agree with labels."""
    settings.check()
    model = load(settings.model)
    frame, known = _rows(settings.data, model)
    try:
        coded = model.code(frame)
    except DataError as error:
        raise DataError(f"{settings.data}: {error}") from error
    outputs = model.outputs(coded)
    answers = _answers(model, outputs)
    try:
        write_whole(settings.out, _content(answers, settings.out))
    except OSError as error:
        raise ArgumentError(f"--out {settings.out}: {error.strerror or error}.") from error
    say(console, [f"{len(frame):,} rows of {settings.data}: {settings.out}", *known(outputs)])


def _rows(data: Path, model: Model):
    """The rows, and what says how right the answers are."""
    if str(data) in NAMES:
        given = load_dataset(str(data))
        frame = pd.DataFrame(given.x, columns=[f"x{i}" for i in range(given.x.shape[1])])
        names = pd.Series(np.array(given.classes)[given.y], name=model.label)
        return frame, lambda outputs: _agreement(data, model, names, outputs)
    if not data.exists():
        raise DataError(f"{data}: no such file, and no built-in data set of that name.")
    source = read_source(data)
    frame, label = source.frame, None
    if not len(frame):
        raise DataError(f"{data}: there are columns, but no rows.")
    if isinstance(source.origin, Arrays):
        array = source.origin.arrays.get(model.label)
        label = None if array is None or array.shape != (len(frame),) else pd.Series(array)
    elif model.label in frame.columns:
        label = pd.Series(frame[model.label])
    return frame, lambda outputs: [] if label is None else _agreement(data, model, label, outputs)


def _answers(model: Model, outputs: np.ndarray) -> pd.DataFrame:
    if not model.classes:
        return pd.DataFrame({model.label: model.target_mean + model.target_std * outputs[:, 0]})
    columns = {model.label: model.named(outputs.argmax(axis=1))}
    columns |= {
        f"probability of {name}": column
        for name, column in zip(model.classes, softmax(outputs).T, strict=True)
    }
    return pd.DataFrame(columns)


def _content(answers: pd.DataFrame, out: Path) -> bytes:
    if out.suffix.lower() == ".parquet":
        return answers.to_parquet()
    return answers.to_csv(index=False).encode()


def _agreement(data: Path, model: Model, label: pd.Series, outputs: np.ndarray) -> list[str]:
    """How right the answers are, on the rows whose labels are there."""
    there, labels = without_missing(label)
    if not there.any():
        return []
    if not model.classes:
        wrong = as_numbers(labels) - (model.target_mean + model.target_std * outputs[there, 0])
        return [f"RMSE on the {len(labels):,} rows with '{model.label}': {_root(wrong):.5g}."]
    codes, names = class_codes(data, labels)
    said = np.array(model.classes)[outputs.argmax(axis=1)][there]
    error = np.mean(np.array(names)[codes] != said)
    return [f"Error on the {len(labels):,} rows with '{model.label}': {error:.4f}."]


def _root(values: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(values**2)))
