"""Values as they were written, and what is the same however it is written."""

import re
from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from hindgrad.apps.tables.source import Source
from hindgrad.apps.tables.text import Lines

WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]{0,299})")
DECIMAL = re.compile(
    r"[+-]?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|[1-9][0-9]*(?=[eE]))([eE][+-]?[0-9]+)?"
)
EXACT = 2.0**53
"""Whole numbers up to this are exact in float64."""


def as_written(source: Source, name: str) -> pd.Series:
    """A column as text, if the file is one: of numbers, 01 and 1 are the same in the frame.
    Otherwise as the frame has it."""
    column = pd.Series(source.frame[name])
    if not isinstance(source.origin, Lines) or column.dtype.kind not in "iuf":
        return column
    place = list(source.frame.columns).index(name)
    records = (fields for fields in source.origin.layout.records(source.origin.lines) if fields)
    cells = [fields[place] if place < len(fields) else "" for fields in records]
    if len(cells) != len(column):
        return column
    return pd.Series(cells, dtype=object, name=name)


def plain(text: str) -> str:
    """The same without blanks around it, plain numbers and booleans in one form: 1.0 and +1 are 1,
    TRUE is True. What is no plain number, such as 01 or 5%, stays as it is."""
    text = text.strip()
    if text.lower() in ("true", "false"):
        return text.capitalize()
    if WHOLE.fullmatch(text):
        return str(int(text))
    if not DECIMAL.fullmatch(text):
        return text
    number = float(text)
    return str(int(number)) if abs(number) <= EXACT and number.is_integer() else repr(number)


def stripped(source: Source) -> Source:
    """The same without blanks around the names of columns."""
    frame, names = source.frame, tidy(source.frame.columns)
    if names == list(frame.columns):
        return source
    given = tuple(name.strip() for name in source.names)
    pairs = zip(frame.columns, names, strict=True)
    comma = frozenset(name for old, name in pairs if old in source.comma)
    return replace(source, frame=frame.set_axis(names, axis=1), names=given, comma=comma)


def tidy(names: Iterable[object]) -> list[str]:
    """Names of columns without blanks around them, if all are different then."""
    given = [str(name) for name in names]
    without = [name.strip() for name in given]
    return without if len(set(without)) == len(without) else given
