"""What was read from a file, which can be written again without some of its rows."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pandas as pd


class Origin(ABC):
    """The contents of a file as they were read: they are written from memory, since the file may
    have changed since."""

    suffix: str
    """How the names of such files end, as `.csv`."""
    rows: int

    @abstractmethod
    def write(self, path: Path, kept: np.ndarray) -> None:
        """Writes the rows `kept`, numbers in rising order, in the format they came in."""


@dataclass(frozen=True)
class Source:
    """A file's columns, before anything is known of their use."""

    frame: pd.DataFrame
    """Every column has a name of its own: numbers, dates, or text as it was written."""
    names: tuple[str, ...]
    """The names as they are in the file, where they may be doubled or empty."""
    origin: Origin
    header: bool = True
    """Whether the names are the file's; otherwise column1, column2, …"""
    image: tuple[int, ...] | None = None
    """The shape of a row as an image, if it is one."""
    notes: tuple[str, ...] = ()
    """How it was read, where that was a guess."""
    comma: frozenset[str] = frozenset()
    """The columns of text in which numbers have decimal commas."""


@final
@dataclass(frozen=True)
class Frame(Origin):
    """A file that pandas wrote."""

    suffix: str
    frame: pd.DataFrame
    writer: Callable[[pd.DataFrame, Path], None]
    rows: int

    def write(self, path: Path, kept: np.ndarray) -> None:
        left = self.frame.iloc[kept]
        plain = isinstance(self.frame.index, pd.RangeIndex)
        self.writer(left.reset_index(drop=True) if plain else left, path)


@final
@dataclass(frozen=True)
class Records(Origin):
    """Records of JSON: one list of them, or one a line."""

    suffix: str
    records: Sequence[Any]
    whole: bool
    rows: int

    def write(self, path: Path, kept: np.ndarray) -> None:
        left = [self.records[row] for row in kept]
        lines = [json.dumps(record, ensure_ascii=False) for record in left]
        text = "[\n" + ",\n".join(lines) + "\n]\n" if self.whole else "\n".join([*lines, ""])
        path.write_text(text, encoding="utf-8")


@final
@dataclass(frozen=True)
class Fields(Origin):
    """Columns of JSON by name, each a list, or values by the rows' names."""

    suffix: str
    columns: Mapping[str, Any]
    rows: int

    def write(self, path: Path, kept: np.ndarray) -> None:
        left = {}
        for name, column in self.columns.items():
            keys = list(column) if isinstance(column, dict) else []
            left[name] = (
                {keys[row]: column[keys[row]] for row in kept}
                if keys
                else [column[r] for r in kept]
            )
        path.write_text(json.dumps(left, ensure_ascii=False) + "\n", encoding="utf-8")


@final
@dataclass(frozen=True)
class Arrays(Origin):
    """Arrays by name; those with an entry for each row lose the rows that are not kept."""

    arrays: Mapping[str, np.ndarray]
    rows: int
    suffix: str = ".npz"

    def write(self, path: Path, kept: np.ndarray) -> None:
        left = {
            name: array[kept] if array.shape[:1] == (self.rows,) else array
            for name, array in self.arrays.items()
        }
        np.savez_compressed(path, allow_pickle=False, **left)
