"""The other formats: Parquet, Feather, JSON, Excel, ARFF and NPZ."""

import csv
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.layout import Layout, above_notes, above_rows
from hindgrad.apps.tables.source import Arrays, Fields, Frame, Records, Source
from hindgrad.apps.tables.text import (
    COMPRESSED,
    NO_HEADER,
    Lines,
    load_text,
    numbered,
    read_fields,
    read_text,
    unique,
)
from hindgrad.apps.tables.words import first_line, quoted

Reader = Callable[[Path, Collection[str]], Source]
"""Reads a file, of whose columns some may be named."""
PLAIN = "biuf"
"""The kinds of arrays that are numbers."""


def read_source(path: Path, named: Collection[str] = ()) -> Source:
    """Reads a file by what its name ends with. A first line with one of the names is a header.

    Raises `DataError` if it is of no format that is known, or damaged.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSED else ""
    suffix = suffixes[-1] if suffixes else ""
    reader = READERS.get(suffix)
    if reader is None or (packed and reader not in (_text, _arff)) or not path.is_file():
        known = ", ".join(READERS)
        raise DataError(
            f"{path}: not a file whose name ends with one of {known} (the texts with "
            f"{', '.join(COMPRESSED)} after it, too)."
        )
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty.")
    return reader(path, named)


def _text(path: Path, named: Collection[str]) -> Source:
    return read_text(path, _ending(path), named)


def _ending(path: Path) -> str:
    count = 2 if path.suffix.lower() in COMPRESSED else 1
    return "".join(path.suffixes[-count:]).lower()


def _framed(
    what: str,
    read: Callable[[Path], pd.DataFrame],
    write: Callable[[pd.DataFrame, Path], None],
) -> Reader:
    """A reader of a format that pandas knows. An index with names is left aside."""

    def reader(path: Path, _: Collection[str]) -> Source:
        try:
            frame = read(path)
        except Exception as error:
            raise DataError(f"{path}: not readable as {what}: {first_line(error)}") from error
        names = [str(column) for column in frame.columns]
        for name, count in Counter(names).items():
            if count > 1:
                raise DataError(f"{path}: {count} columns are named '{name}'; rename them.")
        plain = frame.set_axis(names, axis=1).reset_index(drop=True)
        notes = ()
        if not isinstance(frame.index, pd.RangeIndex):
            notes = ("The index is left aside; it stays in what is written.",)
        origin = Frame(_ending(path), frame, write, len(frame))
        return Source(plain, tuple(names), origin, notes=notes)

    return reader


_read_parquet = _framed("Parquet", pd.read_parquet, lambda frame, path: frame.to_parquet(path))


def _write_feather(frame: pd.DataFrame, path: Path) -> None:
    frame.to_feather(path)


_read_feather = _framed("Feather", pd.read_feather, _write_feather)


def _read_excel(path: Path, named: Collection[str]) -> Source:
    """The first sheet; what stands above its rows is found out as in text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a sheet has beside cells, such as rules
            grid = pd.read_excel(
                path,
                engine="openpyxl",
                header=None,
                dtype=object,
                keep_default_na=False,
                na_values=[""],
            )
    except Exception as error:
        raise DataError(f"{path}: not readable as Excel: {first_line(error)}") from error
    cells = grid.dropna(how="all").dropna(how="all", axis=1)
    if not cells.size:
        raise DataError(f"{path}: the first sheet is empty.")
    records = [
        ["" if missing else str(value) for value, missing in zip(row, gone, strict=True)]
        for row, gone in zip(cells.to_numpy(), cells.isna().to_numpy(), strict=True)
    ]
    head = above_rows(records, len(cells.columns), named)
    count = head.titles + head.header + head.units
    body = cells.iloc[count:]
    above = grid.iloc[: len(grid) if body.empty else grid.index.get_loc(body.index[0])]
    names = records[head.titles] if head.header else numbered(len(cells.columns))
    frame = body.set_axis(unique(names), axis=1).reset_index(drop=True).infer_objects()
    header = () if head.header else (NO_HEADER,)
    notes = (*header, *above_notes(head, records))

    def write(left: pd.DataFrame, to: Path) -> None:
        whole = pd.concat([above, left])
        whole.to_excel(to, index=False, header=False, engine="openpyxl")

    origin = Frame(_ending(path), grid.loc[body.index], write, len(frame))
    return Source(frame, tuple(names), origin, head.header, notes=notes)


def _json(path: Path, _: Collection[str]) -> Source:
    """A list of records, a record a line, or an object of columns."""
    lines, _ = load_text(path)
    text = "".join(lines)
    # Only line feeds end records: others may be in texts.
    rows = [line for line in text.split("\n") if line.strip()]
    try:
        whole = path.suffix.lower() == ".json" and not (len(rows) > 1 and _is_record(rows[0]))
        given: Any = json.loads(text) if whole else [json.loads(line) for line in rows]
        if isinstance(given, dict) and not any(isinstance(v, (list, dict)) for v in given.values()):
            whole, given = False, [given]
        columns = isinstance(given, dict) and _are_columns(given)
        if not columns and not (
            isinstance(given, list) and all(isinstance(r, dict) for r in given)
        ):
            raise ValueError(_what_else(given))
        frame = pd.DataFrame(given)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not readable as JSON, a list of records, a record a line, or an object of "
            f"columns: {first_line(error)}"
        ) from error
    if not len(frame):
        raise DataError(f"{path}: there are no rows.")
    names = [str(column) for column in frame.columns]
    if isinstance(given, dict):
        origin = Fields(_ending(path), given, len(frame))
    else:
        origin = Records(_ending(path), given, whole, len(frame))
    plain = frame.set_axis(names, axis=1).reset_index(drop=True)
    return Source(plain, tuple(names), origin)


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _are_columns(given: Mapping[str, Any]) -> bool:
    """Whether each entry is a column: a list, or, as pandas writes them, values by row; all of the
    same rows."""
    lists = all(isinstance(column, list) for column in given.values())
    if lists and not any(isinstance(v, dict) for column in given.values() for v in column[:1]):
        return len({len(column) for column in given.values()}) == 1
    keyed = all(isinstance(column, dict) for column in given.values())
    return keyed and len({tuple(column) for column in given.values()}) == 1


def _what_else(given: Any) -> str:
    """What is there instead, in words."""
    if isinstance(given, dict):
        lists = [key for key, value in given.items() if isinstance(value, list)]
        under = f"; save the list under '{lists[0]}' alone" if len(lists) == 1 else ""
        return f"it is one object with {quoted(list(given))}{under}."
    if isinstance(given, list):
        other = next(value for value in given if not isinstance(value, dict))
        return f"the list holds {type(other).__name__}s and not records only."
    return f"it is a {type(given).__name__}."


def _arff(path: Path, _: Collection[str]) -> Source:
    """Names from the header, and comma-separated fields; not the sparse kind."""
    lines, encoding = load_text(path)
    start = next((i for i, line in enumerate(lines) if re.match(r"(?i)\s*@data\b", line)), None)
    declared = [re.match(r"(?i)\s*@attribute\s+(.*)", line) for line in lines[:start]]
    names = [_arff_name(found[1]) for found in declared if found]
    if start is None or not names:
        raise DataError(f"{path}: not readable as ARFF: there is no @attribute or no @data.")
    body = range(start + 1, len(lines))
    places = [i for i in body if lines[i].strip() and lines[i].lstrip()[0] != "%"]
    rows = [lines[i] for i in places]
    if any(line.lstrip().startswith("{") for line in rows[:1]):
        raise DataError(f"{path}: sparse ARFF is not read; save it as CSV.")
    records = [_arff_fields(row.strip()) for row in rows]
    for place, fields in zip(places, records, strict=True):
        if len(fields) != len(names):
            raise DataError(
                f"{path}: not readable as ARFF: line {place + 1} has {len(fields)} fields, and "
                f"{len(names)} are declared."
            )
    plain = io.StringIO(newline="")
    csv.writer(plain, lineterminator="\n").writerows(records)
    origin = Lines(
        _ending(path), lines[: start + 1], rows, Layout(",", False, None), encoding, places
    )
    commas = replace(origin, layout=Layout(",", False))
    source = read_fields(path, [plain.getvalue()], names, commas)
    return replace(source, origin=replace(origin, rows=len(rows)))


ARFF_FIELD = re.compile(r"""\s*(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([^,]*?))\s*(,|$)""")


def _arff_fields(line: str) -> list[str]:
    """The fields of a line, with quotes of both kinds and backslashes; empty where a ? alone is."""
    fields, at, more = [], 0, ","
    while more:
        found = ARFF_FIELD.match(line, at)
        assert found is not None
        *quoted_, bare, more = found.groups()
        text = next((text for text in quoted_ if text is not None), None)
        fields.append(("" if bare == "?" else bare) if text is None else _unescaped(text))
        at = found.end()
    return fields


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _arff_name(rest: str) -> str:
    found = re.match(r"'([^']*)'|\"([^\"]*)\"|(\S+)", rest.strip())
    return next((group for group in found.groups() if group), "") if found else ""


def _npz(path: Path, _: Collection[str]) -> Source:
    """The features x0, x1, … are the entries of the rows of the array x; the other arrays with an
    entry for each row are columns."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:
        raise DataError(f"{path}: not readable as NPZ: {first_line(error)}") from error
    if "x" not in arrays:
        raise DataError(
            f"{path}: the features must be an array named x; found {quoted(list(arrays))}."
        )
    x = arrays.pop("x")
    _check_array(path, "x", x, PLAIN)
    if x.ndim < 2:
        raise DataError(
            f"{path}: x has shape {x.shape}; x [rows, features] (or images [rows, height, width]) "
            "is needed."
        )
    flat = native(x).reshape(len(x), int(np.prod(x.shape[1:])))
    frame = pd.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])])
    others = {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}
    return Source(
        frame,
        (*frame.columns, *arrays),
        Arrays({"x": x, **others}, len(x)),
        image=tuple(x.shape[1:]) if x.ndim > 2 else None,
    )


def array_column(path: Path, source: Source, name: str) -> pd.Series:
    """A label from the arrays of an NPZ file."""
    assert isinstance(source.origin, Arrays)
    if name in source.frame.columns and name in source.origin.arrays:
        raise DataError(
            f"{path}: the label is named '{name}', as one of the features x0, x1, … of x; save it "
            "under another name."
        )
    y = source.origin.arrays.get(name)
    _check_array(path, name, y, PLAIN + "US")
    assert y is not None
    if y.shape != (len(source.frame),):
        x = source.origin.arrays["x"].shape
        raise DataError(
            f"{path}: x has shape {x} and {name} {y.shape}; x [rows, features] (or images "
            f"[rows, height, width]) and {name} [rows] are needed."
        )
    return pd.Series(_decoded(path, name, y) if y.dtype.kind == "S" else native(y), name=name)


def _check_array(path: Path, name: str, array: np.ndarray | None, kinds: str) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds:
        what = array.dtype if isinstance(array, np.ndarray) else "no array"
        text = " or text" if "U" in kinds else ""
        raise DataError(f"{path}: {name} is {what}; give an array of numbers{text}.")


def native(array: np.ndarray) -> np.ndarray:
    """In the machine's byte order, without which pandas mistakes values or refuses them."""
    return array.astype(array.dtype.newbyteorder("="))


def _decoded(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: {name} holds bytes that are no UTF-8; save it as text."
        ) from error


TEXTS = (".csv", ".tsv", ".tab", ".psv", ".txt", ".dat", ".data")

READERS: dict[str, Reader] = {
    **dict.fromkeys(TEXTS, _text),
    ".parquet": _read_parquet,
    ".pq": _read_parquet,
    ".feather": _read_feather,
    ".arrow": _read_feather,
    ".jsonl": _json,
    ".ndjson": _json,
    ".json": _json,
    ".xlsx": _read_excel,
    ".arff": _arff,
    ".npz": _npz,
}
"""The formats, by what the names of files end with."""
