"""The rows of another table, as a model reads them."""

from pathlib import Path

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import NAMES, DataError
from hindgrad.apps.datasets import load as load_dataset
from hindgrad.apps.saved import Model
from hindgrad.apps.tables.formats import array_column, read_source
from hindgrad.apps.tables.labels import named_labels, quantities
from hindgrad.apps.tables.numerals import with_points
from hindgrad.apps.tables.source import Arrays
from hindgrad.apps.tables.uses import written_label
from hindgrad.apps.tables.written import as_written, stripped


def read_rows(data: Path, model: Model) -> tuple[pd.DataFrame, pd.Series | None]:
    """The rows, and their labels if they are there."""
    if str(data) in NAMES:
        given = load_dataset(str(data))
        frame = pd.DataFrame(given.x, columns=[f"x{i}" for i in range(given.x.shape[1])])
        return frame, pd.Series(np.array(given.classes)[given.y], name=model.label)
    if not data.exists():
        raise DataError(f"{data}: no such file, and no built-in data set of that name.")
    known = [model.label, *(column.name for column in model.table_columns)]
    source = stripped(read_source(data, known))
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


def labels_for(data: Path, model: Model, label: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Which rows have a label, and these."""
    return named_labels(data, label) if model.classes else quantities(data, label)
