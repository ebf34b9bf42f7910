"""Trained networks on raw rows: all that is needed to use them, in a folder."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.bends import NONE, Bends, added
from hindgrad.apps.tables.columns import CLIP, Coded, Column, code_like
from hindgrad.apps.tables.encoder import Category, Fitted
from hindgrad.apps.tables.uses import check_read
from hindgrad.apps.tables.words import first_line, listed, quoted
from hindgrad.apps.tables.written import WHOLE, tidy
from hindgrad.files import read_arrays, read_json, write_arrays, write_json

FORMAT = "hindgrad model 2"
ABOUT = "model.json"
ARRAYS = "weights.safetensors"


Layers = tuple[tuple[np.ndarray, np.ndarray], ...]
"""Weights [inputs, outputs] and biases [outputs] of each layer of a network."""


@dataclass(frozen=True)
class Model:
    """Networks whose mean answer counts, with what makes their inputs of raw rows and a person's
    words of their outputs."""

    columns: Fitted
    mean: np.ndarray
    std: np.ndarray
    """Of the inputs, [width]."""
    networks: tuple[Layers, ...]
    label: str
    classes: tuple[str, ...] = ()
    """Empty for a quantity."""
    target_mean: float = 0.0
    target_std: float = 1.0
    about: dict[str, Any] = field(default_factory=dict)
    """Where it comes from and how it did, in numbers and words."""
    bends: Bends = NONE

    @property
    def features(self) -> list[str]:
        """The names of the columns that it needs."""
        return [column.name for column in self.table_columns]

    @property
    def table_columns(self) -> list[Column]:
        """What the columns that it needs are."""
        return [part.column for part in self.columns.encoder.parts]

    def predict(self, rows: Any) -> np.ndarray:
        """The likeliest class, as the data names it, or the quantity, [rows].

        **Arguments:**

        - `rows`: a frame with at least the columns `features`, in any order; or an array [rows,
          features] in theirs. What is missing in them, and categories that were not there in the
          training, are dealt with as they were learned.

        Warns of values that are no numbers or dates where these are needed: they are taken for
        missing. Raises `DataError` naming the columns that are not there, or have only such values.
        """
        outputs = self._answers(rows)
        if not self.classes:
            return self.target_mean + self.target_std * outputs[:, 0]
        return self.named(outputs.argmax(axis=1))

    def predict_proba(self, rows: Any) -> np.ndarray:
        """The probability of each class [rows, classes], in the order of `classes`.

        Raises `DataError` as `predict` does, and if the label is a quantity.
        """
        if not self.classes:
            raise DataError(f"'{self.label}' is a quantity, which has no probabilities.")
        return softmax(self._answers(rows))

    def named(self, codes: np.ndarray) -> np.ndarray:
        """Classes by name: whole numbers where all are, and are written so."""
        if all(_is_int64(name) for name in self.classes):
            return np.array([int(name) for name in self.classes], np.int64)[codes]
        return np.array(self.classes)[codes]

    def code(self, rows: Any) -> Coded:
        """Rows as they come, read as those of the training were."""
        if isinstance(rows, pd.DataFrame):
            frame = rows.set_axis(tidy(rows.columns), axis=1)
            absent = [name for name in self.features if name not in frame.columns]
            if absent:
                what, are = ("column", "is") if len(absent) == 1 else ("columns", "are")
                raise DataError(
                    f"the model needs the {what} {quoted(absent)}, which {are} not there; found "
                    f"{quoted(list(frame.columns))}."
                )
        else:
            array = np.asarray(rows)
            if array.ndim != 2 or array.shape[1] != len(self.features):
                raise DataError(
                    f"an array of shape {array.shape} was passed; the model needs [rows, "
                    f"{len(self.features)}], or a frame with the columns {quoted(self.features)}."
                )
            frame = pd.DataFrame(array, columns=self.features)
        return code_like(frame.reset_index(drop=True), self.table_columns)

    def _answers(self, rows: Any) -> np.ndarray:
        """What `outputs` gives for rows as they come."""
        coded = self.code(rows)
        check_read("the rows", coded)
        unread = [str(one) for one in coded.unread if one.column.kind != "category"]
        if unread:
            warnings.warn(f"Taken for missing: {listed(unread)}.", UserWarning, stacklevel=3)
        return self.outputs(coded)

    def outputs(self, coded: Coded) -> np.ndarray:
        """The logarithms of the mean probabilities, or the mean standardised quantity,
        [rows, outputs], float64."""
        numbers = (self.columns.transform(coded) - self.mean) / self.std
        x = self.bends(np.clip(numbers, -CLIP, CLIP))
        return mean_answer([_last(layers, x) for layers in self.networks])

    def save(self, folder: Path) -> None:
        """Writes the model into a folder, which is made: JSON, and arrays as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        about, arrays = self.columns.dump()
        arrays |= {"input.mean": self.mean, "input.std": self.std}
        arrays |= {f"bends.{name}": array for name, array in self.bends._asdict().items()}
        for n, layers in enumerate(self.networks):
            for i, (w, b) in enumerate(layers):
                arrays |= {_name(n, i, "w"): w, _name(n, i, "b"): b}
        write_arrays(folder / ARRAYS, arrays)
        content = {
            "format": FORMAT,
            "use": "hindgrad predict MODEL DATA --out FILE, or hindgrad.apps.load(MODEL)",
            "label": self.label,
            "classes": list(self.classes),
            "target": {"mean": self.target_mean, "std": self.target_std},
            "networks": [len(layers) for layers in self.networks],
            "about": self.about,
            "columns": about,
        }
        write_json(folder / ABOUT, content)


def load(folder: str | Path) -> Model:
    """Loads a model that `hindgrad tune` has written.

    **Arguments:**

    - `folder`: `model` in the folder of results, or that folder itself.

    Raises `DataError` if there is none, or it is damaged.
    """
    path = Path(folder)
    if (path / "model" / ABOUT).is_file():
        path = path / "model"
    if not (path / ABOUT).is_file():
        raise DataError(f"{folder}: there is no model; name the --out of hindgrad tune.")
    try:
        content = read_json(path / ABOUT)
        arrays, _ = read_arrays(path / ARRAYS)
        if content["format"] != FORMAT:
            raise DataError(f"{folder}: the model is of another version, {content['format']}.")
        networks = [
            tuple((arrays[_name(n, i, "w")], arrays[_name(n, i, "b")]) for i in range(count))
            for n, count in enumerate(content["networks"])
        ]
        model = Model(
            Fitted.load(content["columns"], arrays),
            arrays["input.mean"],
            arrays["input.std"],
            tuple(networks),
            content["label"],
            tuple(content["classes"]),
            float(content["target"]["mean"]),
            float(content["target"]["std"]),
            content["about"],
            Bends(*(arrays[f"bends.{name}"] for name in Bends._fields)),
        )
        _check(model, content, arrays)
        return model
    except DAMAGE as error:
        raise DataError(f"{folder}: the model is damaged: {first_line(error)}") from error


def _is_int64(name: str) -> bool:
    """Whether a class is a whole number that comes out as it is written: 01 and 1_0 are none."""
    return bool(WHOLE.fullmatch(name)) and name == str(int(name)) and abs(int(name)) < 2**63


DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What reading a damaged model raises."""


def _check(model: Model, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Raises `ValueError` if the parts of a model do not belong together."""
    width = model.columns.encoder.width
    outputs = len(model.classes) or 1
    about, expected = model.columns.dump()
    if not about or about != content["columns"]:
        raise ValueError("its columns are not as they were saved.")
    for part, state in zip(model.columns.encoder.parts, model.columns.states, strict=True):
        if isinstance(part, Category) and (
            len(state["values"]) > part.width
            or (len(state["values"]) < part.width and not part.many)
        ):
            raise ValueError(f"the values of '{part.column.name}' are not as they were saved.")
    names = set(expected) | {"input.mean", "input.std"}
    names |= {f"bends.{name}" for name in Bends._fields}
    counts = enumerate(map(len, model.networks))
    names |= {_name(n, i, part) for n, count in counts for i in range(count) for part in "wb"}
    if set(arrays) != names:
        raise ValueError(f"arrays are missing, or too many: {quoted(sorted(set(arrays) ^ names))}.")
    if len(set(model.classes)) != len(model.classes) or len(model.classes) == 1:
        raise ValueError("its classes are not as they were saved.")
    if model.mean.shape != (width,) or model.std.shape != (width,) or not np.all(model.std > 0):
        raise ValueError(f"it has other inputs than the {width} numbers of its columns.")
    _check_bends(model.bends, width)
    inputs = width + added(len(model.bends.columns), len(model.bends.frequencies))
    if not model.networks:
        raise ValueError("there is no network.")
    for layers in model.networks:
        _check_layers(layers, inputs, outputs)
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("its numbers are not finite.")
    if not np.isfinite([model.target_mean, model.target_std]).all():
        raise ValueError("the scale of its quantity is not finite.")
    rows = pd.DataFrame({name: [None] for name in model.features})
    model.columns.transform(model.code(rows))  # raises if a column lacks what it has kept


def _check_bends(bends: Bends, width: int) -> None:
    columns, quantiles, frequencies = bends
    if columns.dtype.kind != "i" or columns.ndim != 1 or frequencies.ndim != 1:
        raise ValueError("its bends are not as they were saved.")
    if not np.isin(columns, np.arange(width)).all() or quantiles.shape[1:] != columns.shape:
        raise ValueError("its bends are of other columns than it has.")
    if len(quantiles) < 2 or np.any(np.diff(quantiles, axis=0) < 0):
        raise ValueError("the quantiles of its columns do not rise.")


def _check_layers(layers: Layers, inputs: int, outputs: int) -> None:
    sizes = [inputs, *(w.shape[-1] for w, _ in layers)]
    for (w, b), before, after in zip(layers, sizes[:-1], sizes[1:], strict=True):
        if w.shape != (before, after) or b.shape != (after,):
            raise ValueError(f"a layer {w.shape}, {b.shape} does not fit {before} inputs.")
    if not layers or sizes[-1] != outputs:
        raise ValueError(f"a network has {sizes[-1]} outputs, of {outputs} that are needed.")


def mean_answer(answers: Sequence[np.ndarray]) -> np.ndarray:
    """Of networks' last layers, each [rows, outputs]: the logarithms of the mean probabilities, or
    the mean of a quantity."""
    if answers[0].shape[1] == 1:
        return np.mean(answers, axis=0)
    return np.log(np.mean([softmax(one) for one in answers], axis=0) + LEAST)


LEAST = 1e-300
"""A probability of zero has a logarithm."""


def _last(layers: Layers, x: np.ndarray) -> np.ndarray:
    """What the last layer gives."""
    *hidden, (w, b) = layers
    for weights, biases in hidden:
        x = np.tanh(x @ weights + biases)
    return x @ w + b


def _name(network: int, layer: int, part: str) -> str:
    return f"networks.{network}.layers.{layer}.{part}"


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Probabilities [rows, classes] from the logarithms of their ratios."""
    powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def network_of(params: Sequence[Any]) -> Layers:
    """The layers of a trained network as arrays in float64."""
    return tuple(
        (np.asarray(layer["w"], np.float64), np.asarray(layer["b"], np.float64)) for layer in params
    )
