"""Rows as people know them: cells of text, or a picture."""

import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
import pandas as pd

from hindgrad.apps.clean.pictures import as_images
from hindgrad.apps.tables.columns import Coded, Column

LONGEST = 160
"""Texts are cut after so many characters."""


@dataclass(frozen=True)
class Shown:
    """Some rows, to be shown."""

    coded: Coded
    pictures: np.ndarray | None = None
    """[rows, height, width], or with colours, between 0 and 1; None if they are none."""

    @classmethod
    def of(cls, coded: Coded, image: tuple[int, ...] | None, like: np.ndarray) -> "Shown":
        """Rows as images if they are such; their brightness is that of the rows `like`."""
        return cls(coded, None if image is None else as_images(coded.x, image, like))

    @property
    def names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.coded.columns]

    def cells(self, row: int) -> list[str]:
        """The values of a row as text."""
        pairs = zip(self.coded.columns, self.coded.x[row], strict=True)
        return [cell(column, float(value)) for column, value in pairs]

    def png(self, row: int) -> bytes:
        """The picture of a row."""
        assert self.pictures is not None
        picture, file = self.pictures[row], io.BytesIO()
        options: dict[str, Any] = (
            {} if picture.ndim == 3 else {"cmap": "gray_r", "vmin": 0.0, "vmax": 1.0}
        )
        matplotlib.image.imsave(file, picture, format="png", **options)
        return file.getvalue()


def cell(column: Column, value: float) -> str:
    """A value of a column as text; nothing if it is missing."""
    if np.isnan(value):
        return ""
    match column.kind:
        case "category" | "text":
            return column.levels[int(value)]
        case "date":
            moment = pd.Timestamp(round(value * 1e3), unit="ms")
            return f"{moment:%Y-%m-%d}" if value % 86400 == 0 else f"{moment:%Y-%m-%d %H:%M:%S}"
        case "time":
            return f"{int(value) // 3600:02}:{int(value) // 60 % 60:02}:{int(value) % 60:02}"
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.6g}"


def cut(text: str) -> str:
    """A text that is not too long for a table on a page."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
