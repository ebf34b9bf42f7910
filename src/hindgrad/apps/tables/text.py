"""Delimited text: CSV, TSV and their like, whatever separates the fields."""

import bz2
import codecs
import gzip
import io
import lzma
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.layout import NAMED, SAMPLE, Layout, take_apart
from hindgrad.apps.tables.numerals import (
    EITHER_COMMA,
    EITHER_POINT,
    MISSING,
    bare,
    marks_of,
    with_points,
)
from hindgrad.apps.tables.source import Origin, Source
from hindgrad.apps.tables.words import first_line, quoted

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
MAGIC = {".gz": b"\x1f\x8b", ".bz2": b"BZh", ".xz": b"\xfd7zXZ\0"}
"""How compressed files begin, whatever they are called."""

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}

ROUND_TRIP = {"float_precision": "round_trip"} if int(pd.__version__.split(".")[0]) < 3 else {}
"""Numbers are read as they are written; pandas 2 reads some a bit off unless asked to."""

NO_HEADER = "There is no header: the columns are called column1, column2, …"


@final
@dataclass(frozen=True)
class Lines(Origin):
    """The text itself, so that every number and the header stay as they were written."""

    suffix: str
    before: Sequence[str]
    """Comments and the header."""
    lines: Sequence[str]
    """The others."""
    layout: Layout
    encoding: str
    places: Sequence[int]
    """Where in the file these lines are."""
    rows: int = 0

    def write(self, path: Path, kept: np.ndarray) -> None:
        spans = [slice(start, end) for _, start, end in self.layout.pieces(self.lines)]
        chosen = [line for row in kept for line in self.lines[spans[row]]]
        if chosen and not chosen[-1].endswith(("\n", "\r")):
            chosen[-1] += "\n"
        joined = "".join(
            line if line.endswith(("\n", "\r")) else line + "\n" for line in [*self.before, *chosen]
        )
        content = joined.encode(self.encoding)
        path.write_bytes(PACK.get(path.suffix, bytes)(content))


def read_text(path: Path, suffix: str, named: Collection[str]) -> Source:
    """The columns of a text file, some of which may be named: numbers where all are numbers,
    otherwise as they are written."""
    lines, encoding = load_text(path)
    parts = take_apart(lines, named)
    if parts is None:
        raise DataError(f"{path}: the file is empty.")
    layout, names = parts.layout, parts.names
    header = names is not None
    names = numbered(parts.columns) if names is None else names
    if len(names) == parts.columns - 1 and _has_row_names(parts.rows, layout):
        names = ["", *names]  # R writes no name above those of rows
    origin = Lines(suffix, parts.before, parts.rows, layout, encoding, parts.places)
    source = read_fields(path, parts.rows, names, origin)
    notes = (*_notes(layout, header), *source.notes, *parts.notes)
    return replace(source, header=header, notes=notes)


def read_fields(path: Path, lines: Sequence[str], names: Sequence[str], origin: Lines) -> Source:
    """The columns of records whose names are known from elsewhere."""
    try:
        frame = _frame(path, lines, origin.layout, unique(names))
    except DataError as error:
        raise DataError(_too_long(path, lines, names, origin) or str(error)) from error
    comma, notes = _decimal_commas(frame, origin.layout)
    rows = replace(origin, rows=len(frame))
    return Source(frame, tuple(names), rows, notes=tuple(notes), comma=comma)


def load_text(path: Path) -> tuple[list[str], str]:
    """The lines of a file, with their ends, and its encoding."""
    content, encoding = _decoded(path)
    return list(io.StringIO(content, newline="")), encoding


def _decoded(path: Path) -> tuple[str, str]:
    content = path.read_bytes()
    packed = next((end for end, magic in MAGIC.items() if content.startswith(magic)), "")
    packed = path.suffix.lower() if path.suffix.lower() in COMPRESSED else packed
    try:
        content = COMPRESSED[packed](content) if packed else content
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise DataError(f"{path}: not readable as {packed}: {first_line(error)}") from error
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encodings = ["utf-32"]
    elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    elif b"\0" in content:
        raise DataError(f"{path}: not readable as text: it holds zero bytes.")
    else:
        bom = content.startswith(codecs.BOM_UTF8)
        encodings = ["utf-8-sig" if bom else "utf-8", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            return content.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: not readable as text in {encodings[0]}.")


def _has_row_names(lines: Sequence[str], layout: Layout) -> bool:
    """Whether the first fields differ from row to row."""
    first = [row[0] for row in layout.records(lines[:SAMPLE]) if row]
    return len(set(first)) == len(first)


def numbered(columns: int) -> list[str]:
    return [f"column{i + 1}" for i in range(columns)]


def unique(names: Sequence[str]) -> list[str]:
    """Each with a name of its own: of two columns called a, the second is a.1."""
    taken, found = set(names), []
    for i, name in enumerate(names):
        name = name or f"Unnamed: {i}"
        new, k = name, 0
        while new in found or (k and new in taken):
            k += 1
            new = f"{name}.{k}"
        found.append(new)
    return found


def _frame(path: Path, lines: Sequence[str], layout: Layout, names: list[str]) -> pd.DataFrame:
    """Numbers as such; the other columns, and those with missing values, as they are written."""
    if not any(line.strip() for line in lines):
        return pd.DataFrame({name: pd.Series(dtype=float) for name in names})
    text = "".join(line.strip(" ") if layout.separator == " " else line for line in lines)
    typed = _parsed(path, text, layout, names)
    plain = [_all_numbers(pd.Series(typed[name]), layout) for name in names]
    if all(plain):
        return typed
    raw = _parsed(path, text, layout, names, dtype=str)
    columns = {}
    for name, number in zip(names, plain, strict=True):
        columns[name] = typed[name] if number else _cells(pd.Series(raw[name]))
    return pd.DataFrame(columns)


def _decimal_commas(frame: pd.DataFrame, layout: Layout) -> tuple[frozenset[str], list[str]]:
    """The columns of numbers with decimal commas, and notes.

    Each column says so itself if it can. In one that cannot, 1,100 has a decimal comma if fields
    are separated by semicolons, or other columns have some; but not if commas separate fields.
    """
    texts = {str(name): pd.Series(frame[name]) for name in frame if frame[name].dtype == object}
    marks = {name: marks_of(pd.unique(cells.str.strip())) for name, cells in texts.items()}
    found = {name for name, mark in marks.items() if mark.decimal_comma}
    elsewhere, notes = bool(found), []
    for name, mark in marks.items():
        if name in found or mark.point or mark.comma or layout.separator == ",":
            continue
        comma = mark.either_comma and (layout.separator == ";" or elsewhere)
        point = mark.either_point and not mark.either_comma and elsewhere
        if comma or point:
            found.add(name)
            form = EITHER_COMMA if comma else EITHER_POINT
            cell = next(c for c in map(bare, pd.unique(texts[name])) if form.fullmatch(c))
            notes.append(
                f"In '{name}', {cell} could be two numbers; read as {with_points(cell, True)}."
            )
    if found:
        named = [name for name in marks if name in found]
        notes.insert(0, f"Numbers have decimal commas in {quoted(named)}.")
    return frozenset(found), notes


def _too_long(path: Path, lines: Sequence[str], names: Sequence[str], origin: Lines) -> str:
    """What is to be said of the first record with more fields than there are names, if any."""
    for fields, start, _ in origin.layout.pieces(lines):
        if len(fields) > len(names):
            return (
                f"{path}: not readable as CSV: line {origin.places[start] + 1} has {len(fields)} "
                f"fields, and there are {len(names)} columns."
            )
    return ""


def _all_numbers(column: pd.Series, layout: Layout) -> bool:
    """Whether all are numbers beyond doubt: where fields are separated by semicolons, 1.100 may be
    eleven hundred."""
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not number or bool(column.isna().any()):
        return False
    if layout.separator != ";" or column.dtype.kind != "f":
        return True
    thousandths = column.to_numpy() * 1000
    return not np.allclose(thousandths, thousandths.round(), rtol=1e-12, atol=0)


def _parsed(path: Path, text: str, layout: Layout, names: list[str], **options) -> pd.DataFrame:
    separator = {"sep": r"\s+"} if layout.separator == " " else {"sep": layout.separator}
    try:
        with warnings.catch_warnings():
            # Rows longer than the header are only warned of.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(
                io.StringIO(text, newline=""),
                **separator,
                names=names,
                header=None,
                index_col=False,
                keep_default_na=False,
                na_values=[] if "dtype" in options else list(MISSING),
                quotechar=layout.quote or '"',
                skipinitialspace=layout.blank_after,
                low_memory=False,
                **ROUND_TRIP,
                **options,
            )
    except (ValueError, pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not readable as CSV: {first_line(error)}") from error


def _cells(column: pd.Series) -> pd.Series:
    """As text, without quotes of the other kind around all of them."""
    cells = column.fillna("").astype(object)
    known = [cell for cell in pd.unique(cells) if cell not in MISSING]
    if known and all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in known):
        cells = cells.map(lambda cell: cell.strip("'"))
    return cells


def _notes(layout: Layout, header: bool) -> Iterator[str]:
    separator = layout.separator
    if separator != ",":
        yield f"Fields are separated by {NAMED.get(separator, repr(separator))}."
    if not header:
        yield NO_HEADER
