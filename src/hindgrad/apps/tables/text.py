"""Delimited text: CSV, TSV and their like, whatever separates the fields."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.source import Origin, Source
from hindgrad.apps.tables.words import first_line

COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}

NAMED = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "blanks"}
"""What may separate fields."""

COMMENTS = "#%"
SAMPLE = 200
"""So many lines tell how the fields are separated, and whether the first is a header."""
CELLS = 20_000

MISSING = ("", "?", "NA", "N/A", "n/a", "NaN", "nan", "-", "--", "NULL", "null", "#N/A", ".")
"""What stands for a missing value in the columns to learn from."""

COMMA = re.compile(r"[+-]?\d+(\.\d{3})*,\d+([eE][+-]?\d+)?")
POINT = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Layout:
    """How the fields of a text are to be told apart."""

    separator: str
    header: bool
    comma: bool
    """Whether numbers have a decimal comma."""
    blank_after: bool
    """Whether quotes follow a blank after the separator."""
    quote: str = '"'

    def records(self, lines: Sequence[str]) -> Iterator[list[str]]:
        """The fields of each record."""
        stripped = (line.strip(" ") for line in lines) if self.separator == " " else lines
        return csv.reader(
            stripped,
            delimiter=self.separator,
            quotechar=self.quote,
            skipinitialspace=self.separator == " " or self.blank_after,
        )


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
    rows: int = 0

    def write(self, path: Path, kept: np.ndarray) -> None:
        reader = self.layout.records(self.lines)
        ends, previous = [], 0
        for fields in reader:
            if fields:
                ends.append((previous, reader.line_num))  # type: ignore[attr-defined]
            previous = reader.line_num  # type: ignore[attr-defined]
        chosen = [line for row in kept for line in self.lines[slice(*ends[row])]]
        if chosen and not chosen[-1].endswith(("\n", "\r")):
            chosen[-1] += "\n"
        joined = "".join(
            line if line.endswith(("\n", "\r")) else line + "\n" for line in [*self.before, *chosen]
        )
        content = joined.encode(self.encoding)
        path.write_bytes(PACK.get(path.suffix, bytes)(content))


def read_text(path: Path, suffix: str) -> Source:
    """The columns of a text file: numbers where all are numbers, otherwise as they are written."""
    content, encoding = _decoded(path)
    comments, lines = _without_comments(list(io.StringIO(content, newline="")))
    if not lines:
        raise DataError(f"{path}: the file is empty.")
    layout = _layout(lines)
    head = _header_lines(lines, layout) if layout.header else 0
    before, rest = [*comments, *lines[:head]], lines[head:]
    width = Counter(len(row) for row in layout.records(rest[:SAMPLE]) if row)
    first = next(layout.records(lines), [])
    columns = max(width, key=lambda n: (width[n], n)) if width else len(first)
    names = first if layout.header else _numbered(columns)
    if len(names) == columns - 1 and _has_row_names(rest, layout):
        names = ["", *names]  # R writes no name above those of rows
    origin = Lines(suffix, before, rest, layout, encoding)
    frame = _frame(path, rest, layout, _unique(names))
    origin = replace(origin, rows=len(frame))
    return Source(frame, tuple(names), origin, layout.header, notes=tuple(_notes(layout, comments)))


def read_fields(path: Path, lines: Sequence[str], names: Sequence[str], origin: Lines) -> Source:
    """The columns of records whose names are known from elsewhere."""
    frame = _frame(path, lines, origin.layout, _unique(names))
    return Source(frame, tuple(names), replace(origin, rows=len(frame)))


def load_text(path: Path) -> tuple[list[str], str]:
    """The lines of a file, with their ends, and its encoding."""
    content, encoding = _decoded(path)
    return list(io.StringIO(content, newline="")), encoding


def _decoded(path: Path) -> tuple[str, str]:
    content = path.read_bytes()
    try:
        if path.suffix.lower() in COMPRESSED:
            content = COMPRESSED[path.suffix.lower()](content)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise DataError(f"{path}: not readable as {path.suffix}: {first_line(error)}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
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


def _without_comments(lines: list[str]) -> tuple[list[str], list[str]]:
    """Comments, and the other lines. Where most lines begin so, these are no comments."""
    is_comment = [line.lstrip(" ").startswith(tuple(COMMENTS)) for line in lines]
    if 2 * sum(is_comment) > len(lines):
        is_comment = [False] * len(lines)
    comments = [line for line, comment in zip(lines, is_comment, strict=True) if comment]
    rest = [line for line, comment in zip(lines, is_comment, strict=True) if not comment]
    while rest and not rest[0].strip():
        rest.pop(0)
    return comments, rest


def _layout(lines: Sequence[str]) -> Layout:
    sample = [line for line in lines[: SAMPLE + 1] if line.strip()]
    blank_after = any(re.search(r'[,;|]\s+"', line) for line in sample)
    tried = []
    for separator in NAMED:
        layout = Layout(separator, False, False, blank_after)
        rows = [row for row in layout.records(sample) if row]
        count, times = Counter(map(len, rows)).most_common(1)[0]
        tried.append((layout, rows, count, times / len(rows)))
    split = [t for t in tried[:-1] if t[2] > 1 and t[3] >= 0.9] or [
        t for t in tried[-1:] if t[2] > 1 and t[3] >= 0.9
    ]
    # In a file with semicolons and decimal commas, the commas may divide it as evenly.
    layout, rows, *_ = max(
        split or tried[:1], key=lambda t: (round(t[3], 3), _decimal_comma(t[1][:20]), t[2])
    )
    few = rows[: max(20, CELLS // len(rows[0]))]
    return replace(layout, header=_has_header(few), comma=_decimal_comma(few))


def _decimal_comma(rows: Sequence[Sequence[str]]) -> bool:
    cells = [cell.strip() for row in rows for cell in row]
    commas = [cell for cell in cells if COMMA.fullmatch(cell)]
    if not commas or any(POINT.fullmatch(cell) for cell in cells):
        return False
    return any(not re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+", cell) for cell in commas)


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first record names the columns: it has text where the others have numbers.

    Without numbers, it does unless its fields are found further down again.
    """
    first, body = rows[0], rows[1:]
    if not body:
        return True
    names = [cell.strip() for cell in first]
    numbers = [_is_number(name) for name in names]
    numbered = [int(name) for name in names if name.isdigit()]
    if len(numbered) > 2 and numbered == list(range(numbered[0], numbered[0] + len(numbered))):
        return numbered[0] in (0, 1)
    text_over_numbers = numbers_over_numbers = again = 0
    for i, name in enumerate(names):
        cells = [row[i].strip() for row in body if i < len(row)]
        known = [cell for cell in cells if cell not in MISSING]
        if known and np.mean([_is_number(cell) for cell in known]) > 0.9:
            text_over_numbers += not numbers[i] and name not in MISSING
            numbers_over_numbers += numbers[i]
        else:
            again += name in known and name not in MISSING
    if text_over_numbers or numbers_over_numbers:
        return text_over_numbers > 0 and text_over_numbers >= numbers_over_numbers
    return again == 0 and len(set(names)) == len(names)


def _is_number(cell: str) -> bool:
    cell = cell.strip("'")
    return bool(NUMBER.fullmatch(cell) or COMMA.fullmatch(cell))


def _header_lines(lines: Sequence[str], layout: Layout) -> int:
    """Over how many lines the header goes: a name may have line breaks."""
    reader = layout.records(lines)
    next(reader)
    return reader.line_num  # type: ignore[attr-defined]


def _has_row_names(lines: Sequence[str], layout: Layout) -> bool:
    """Whether the first fields differ from row to row."""
    first = [row[0] for row in layout.records(lines[:SAMPLE]) if row]
    return len(set(first)) == len(first)


def _numbered(columns: int) -> list[str]:
    return [f"column{i + 1}" for i in range(columns)]


def _unique(names: Sequence[str]) -> list[str]:
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
    typed = _parsed(path, text, layout, names, decimal="," if layout.comma else ".")
    plain = [_all_numbers(pd.Series(typed[name])) for name in names]
    if all(plain):
        return typed
    raw = _parsed(path, text, layout, names, dtype=str)
    columns = {}
    for name, number in zip(names, plain, strict=True):
        columns[name] = typed[name] if number else _cells(pd.Series(raw[name]), layout.comma)
    return pd.DataFrame(columns)


def _all_numbers(column: pd.Series) -> bool:
    number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return number and not bool(column.isna().any())


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
                quotechar=layout.quote,
                skipinitialspace=layout.blank_after,
                low_memory=False,
                **options,
            )
    except (ValueError, pd.errors.ParserWarning, pd.errors.ParserError) as error:
        raise DataError(f"{path}: not readable as CSV: {first_line(error)}") from error


def _cells(column: pd.Series, comma: bool) -> pd.Series:
    """As text, without quotes of the other kind around all of them, with decimal points."""
    cells = column.fillna("").astype(object)
    known = [cell for cell in pd.unique(cells) if cell not in MISSING]
    if known and all(len(cell) > 1 and cell[0] == cell[-1] == "'" for cell in known):
        cells = cells.map(lambda cell: cell.strip("'"))
    if comma:
        cells = cells.map(
            lambda cell: cell.replace(".", "").replace(",", ".") if COMMA.fullmatch(cell) else cell
        )
    return cells


def _notes(layout: Layout, comments: Sequence[str]) -> Iterator[str]:
    if layout.separator != ",":
        decimals = " and numbers have decimal commas" if layout.comma else ""
        yield f"Fields are separated by {NAMED[layout.separator]}{decimals}."
    if not layout.header:
        yield "There is no header: the columns are called column1, column2, …"
    if comments:
        lines = "1 line" if len(comments) == 1 else f"{len(comments)} lines"
        yield f"{lines} of comments left aside."
