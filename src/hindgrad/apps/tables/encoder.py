"""The columns of a table as the numbers a network takes; fitted on the rows to train on."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from hindgrad.apps.tables.columns import MANY, Coded, Column

CLASSES = 20
"""With at most so many classes, a column of many values says how often each comes with each."""

READ = 30
"""Numbers that stand for a text."""

DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0

State = dict[str, Any]
"""What a fitted part has to keep: numbers, texts and lists, or arrays."""


class Part(ABC):
    """How one column becomes numbers. How many depends on the whole table, so that trainings on
    other rows of it are compiled once; what they are, on the rows it is fitted on alone."""

    column: Column
    holes: bool
    """Whether values are missing somewhere in the table; a number then says where."""

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """What the numbers are called."""

    @abstractmethod
    def fit(self, values: np.ndarray, y: np.ndarray) -> State:
        """What is kept of values [rows], positions in the column's levels for categories and
        texts, and of the labels `y`."""

    @abstractmethod
    def numbers(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        """The numbers [rows, len(names) less one if there are holes]."""

    @property
    def all_names(self) -> list[str]:
        return [*self.names, *([f"{self.column.name} missing"] if self.holes else [])]

    def transform(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        """The numbers, and where a value is missing, [rows, len(all_names)]."""
        return self.with_holes(self.numbers(values, levels, state), values)

    def with_holes(self, numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
        """The numbers with one that says where a value is missing, if that was so in the table."""
        missing = np.isnan(values)[:, None]
        return np.concatenate([numbers, missing], axis=1) if self.holes else numbers


@final
@dataclass(frozen=True)
class Number(Part):
    """As it is; a missing one is the median."""

    column: Column
    holes: bool

    @property
    def names(self) -> list[str]:
        return [self.column.name]

    def fit(self, values: np.ndarray, y: np.ndarray) -> State:
        del y
        known = values[~np.isnan(values)]
        return {"median": float(np.median(known)) if len(known) else 0.0}

    def numbers(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        del levels
        return np.where(np.isnan(values), state["median"], values)[:, None]


@final
@dataclass(frozen=True)
class Moment(Part):
    """Seconds, and where in the day, the week and the year they are, on circles."""

    column: Column
    holes: bool

    @property
    def periods(self) -> dict[str, float]:
        if self.column.kind == "time":
            return {"day": DAY}
        return {"day": DAY, "week": WEEK, "year": YEAR}

    @property
    def names(self) -> list[str]:
        circles = [f"{part} of {name}" for name in self.periods for part in ("sine", "cosine")]
        return [f"{self.column.name} {what}" for what in ("seconds", *circles)]

    def fit(self, values: np.ndarray, y: np.ndarray) -> State:
        del y
        known = values[~np.isnan(values)]
        return {"median": float(np.median(known)) if len(known) else 0.0}

    def numbers(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        del levels
        seconds = np.where(np.isnan(values), state["median"], values)
        angles = [2 * np.pi * (seconds % period) / period for period in self.periods.values()]
        circles = [wave(angle).round(12) for angle in angles for wave in (np.sin, np.cos)]
        return np.stack([seconds, *circles], axis=1)


@final
@dataclass(frozen=True)
class Category(Part):
    """A number for each of the most frequent values, 1 where it is, and for a column of many values
    the mean of the label, or the share of each class, among the rows of the same value (Micci-
    Barreca 2001). A value that is not known has no such row, and the mean of all."""

    column: Column
    holes: bool
    targets: int
    """How many numbers stand for the label: 1, or one for each of several classes."""

    @property
    def many(self) -> bool:
        return len(self.column.levels) > MANY

    @property
    def width(self) -> int:
        return min(MANY, len(self.column.levels))

    @property
    def names(self) -> list[str]:
        if not self.many:
            return [f"{self.column.name}={value}" for value in self.column.levels]
        frequent = [f"{self.column.name} frequent {i + 1}" for i in range(self.width)]
        return frequent + [f"{self.column.name} mean {i + 1}" for i in range(self.targets)]

    def fit(self, values: np.ndarray, y: np.ndarray) -> State:
        levels = self.column.levels
        codes, counts = np.unique(values[~np.isnan(values)].astype(int), return_counts=True)
        seen = {levels[code] for code in codes}
        if not self.many:
            return {"values": [level if level in seen else None for level in levels]}
        frequent = codes[np.lexsort((codes, -counts))[: self.width]]
        state: State = {"values": [levels[code] for code in frequent]}
        if self.targets:
            encoder, _ = self._means(values, y)
            known = [int(code) for code in encoder.categories_[0]]
            means = np.reshape(encoder.encodings_, (self.targets, -1)).T.tolist()
            pairs = zip(known, means, strict=True)
            state["means"] = {levels[code]: mean for code, mean in pairs if code >= 0}
            state["mean"] = np.reshape(encoder.target_mean_, -1).tolist()
        return state

    def of_others(self, values: np.ndarray, y: np.ndarray, state: State) -> np.ndarray:
        """The numbers of the rows that are fitted on: the means are those of other rows, or each
        row would be told its own label."""
        numbers = self.numbers(values, self.column.levels, state)
        if self.many and self.targets:
            numbers[:, self.width :] = self._means(values, y)[1]
        return numbers

    def _means(self, values: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
        from sklearn.preprocessing import TargetEncoder

        codes = np.where(np.isnan(values), -1, values).astype(int)[:, None]
        kind = "continuous" if y.dtype.kind == "f" else "multiclass"
        if kind == "multiclass" and len(np.unique(y)) < 3:
            kind = "binary"
        encoder = TargetEncoder(target_type=kind, random_state=0)  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of classes of few rows, which are in few folds
            numbers = encoder.fit_transform(codes, y)
        if kind != "multiclass":
            return encoder, np.repeat(numbers, self.targets, axis=1)
        return encoder, numbers

    def numbers(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        place = {value: i for i, value in enumerate(state["values"]) if value is not None}
        means = self.targets if self.many else 0
        table = np.zeros((len(levels) + 1, self.width + means))
        if means:
            table[:, self.width :] = state["mean"]
        for code, level in enumerate(levels):
            if level in place:
                table[code, place[level]] = 1.0
            if means and level in state["means"]:
                table[code, self.width :] = state["means"][level]
        return table[np.where(np.isnan(values), len(levels), values).astype(int)]


@final
@dataclass(frozen=True)
class Text(Part):
    """What a text is about: leading components of its words' frequencies."""

    column: Column
    holes: bool

    @property
    def names(self) -> list[str]:
        return [f"{self.column.name} words {i + 1}" for i in range(READ)]

    def fit(self, values: np.ndarray, y: np.ndarray) -> State:
        del y
        codes = values[~np.isnan(values)].astype(int)
        return {"text": fit_text([self.column.levels[code] for code in codes], READ)}

    def numbers(self, values: np.ndarray, levels: Sequence[str], state: State) -> np.ndarray:
        table = _components(levels, state["text"], READ)
        return table[np.where(np.isnan(values), len(levels), values).astype(int)]


def fit_text(texts: Sequence[str], width: int) -> State:
    """Latent semantic analysis: TF-IDF of words and pairs of words, and its components."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**PIECES, max_features=5000, dtype=np.float64)
    try:
        frequencies = vectorizer.fit_transform(texts)
    except ValueError:  # there is no word in any of them
        return {"vocabulary": [], "idf": [], "components": np.zeros((0, 0))}
    names = vectorizer.get_feature_names_out().tolist()
    count = min(width, frequencies.shape[0], len(names) - 1)
    components = np.eye(1, len(names))
    if count > 0:
        components = TruncatedSVD(count, random_state=0).fit(frequencies).components_
    return {"vocabulary": names, "idf": vectorizer.idf_.tolist(), "components": components}


PIECES: dict[str, Any] = {"ngram_range": (1, 2), "sublinear_tf": True}


def _components(levels: Sequence[str], state: State, width: int) -> np.ndarray:
    """The components of each text [levels + 1, width], all zero for what is missing."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    table = np.zeros((len(levels) + 1, width))
    if len(state["vocabulary"]) and len(levels):
        vectorizer = TfidfVectorizer(**PIECES, vocabulary=state["vocabulary"])
        vectorizer.idf_ = np.asarray(state["idf"])
        components = np.asarray(state["components"])
        table[:-1, : len(components)] = vectorizer.transform(levels) @ components.T
    return table


@dataclass(frozen=True)
class Encoder:
    """All columns of a table as numbers."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, columns: Sequence[Column], x: np.ndarray, classes: int) -> "Encoder":
        """For a table's columns and values [rows, columns], and how many classes there are."""
        holes = [bool(np.isnan(x[:, i]).any()) for i in range(len(columns))]
        targets = classes if 2 < classes <= CLASSES else int(classes <= 2)
        pairs = zip(columns, holes, strict=True)
        return cls(tuple(_part(column, hole, targets) for column, hole in pairs))

    @property
    def names(self) -> list[str]:
        """What the numbers are called."""
        return [name for part in self.parts for name in part.all_names]

    @property
    def width(self) -> int:
        """How many numbers a row becomes."""
        return len(self.names)

    @property
    def plain(self) -> bool:
        """Whether every column is a number that is there in all rows."""
        return all(isinstance(part, Number) and not part.holes for part in self.parts)

    def fit(self, x: np.ndarray, y: np.ndarray) -> tuple["Fitted", np.ndarray]:
        """Fitted on rows [rows, columns] with the table's own levels and their labels; and the
        numbers [rows, width] of these rows."""
        if self.plain:
            states = [part.fit(x[:, i], y) for i, part in enumerate(self.parts)]
            return Fitted(self, tuple(states)), x
        states, made = [], []
        for i, part in enumerate(self.parts):
            values = x[:, i]
            state = part.fit(values, y)
            states.append(state)
            if isinstance(part, Category):
                made.append(part.with_holes(part.of_others(values, y, state), values))
            else:
                made.append(part.transform(values, part.column.levels, state))
        return Fitted(self, tuple(states)), np.concatenate(made, axis=1)


def _part(column: Column, holes: bool, targets: int) -> Part:
    match column.kind:
        case "category":
            return Category(column, holes, targets)
        case "text":
            return Text(column, holes)
        case "date" | "time":
            return Moment(column, holes)
    return Number(column, holes)


@dataclass(frozen=True)
class Fitted:
    """An encoder with what it has kept of the rows it was fitted on."""

    encoder: Encoder
    states: tuple[State, ...]

    def transform(self, coded: Coded) -> np.ndarray:
        """The numbers [rows, width] of rows, whose levels may be others than the table's."""
        if self.encoder.plain and not np.isnan(coded.x).any():
            return coded.x
        triples = zip(self.encoder.parts, self.states, coded.columns, strict=True)
        made = [
            part.transform(coded.x[:, i], column.levels, state)
            for i, (part, state, column) in enumerate(triples)
        ]
        return np.concatenate(made, axis=1)

    def dump(self) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        """Everything as JSON can hold it, and arrays by name."""
        about, arrays = [], {}
        for i, (part, state) in enumerate(zip(self.encoder.parts, self.states, strict=True)):
            column = part.column
            kept = {name: value for name, value in state.items() if name != "text"}
            entry: dict[str, Any] = {
                "name": column.name,
                "kind": column.kind,
                "form": column.form,
                "levels": list(column.levels) if column.kind == "category" else [],
                "holes": part.holes,
                "targets": part.targets if isinstance(part, Category) else 0,
                "state": kept,
            }
            if "text" in state:
                entry["text"] = {k: v for k, v in state["text"].items() if k != "components"}
                arrays[f"text.{i}"] = np.asarray(state["text"]["components"])
            about.append(entry)
        return about, arrays

    @classmethod
    def load(cls, about: Sequence[Mapping[str, Any]], arrays: Mapping[str, np.ndarray]) -> "Fitted":
        """The inverse of `dump`."""
        parts, states = [], []
        for i, entry in enumerate(about):
            column = Column(entry["name"], entry["kind"], entry["form"], tuple(entry["levels"]))
            parts.append(_part(column, bool(entry["holes"]), entry["targets"]))
            state = dict(entry["state"])
            if "text" in entry:
                state["text"] = dict(entry["text"]) | {"components": arrays[f"text.{i}"]}
            states.append(state)
        return cls(Encoder(tuple(parts)), tuple(states))
