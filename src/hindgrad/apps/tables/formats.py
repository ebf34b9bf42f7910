"""The other formats: Parquet, Feather, JSON, Excel, ARFF and NPZ."""

import csv
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from hindgrad.apps.datasets import DataError
from hindgrad.apps.tables.source import Arrays, Frame, Records, Source
from hindgrad.apps.tables.text import (
    COMPRESSED,
    Layout,
    Lines,
    load_text,
    read_fields,
    read_text,
)
from hindgrad.apps.tables.words import first_line, quoted

PLAIN = "biuf"
"""The kinds of arrays that are numbers."""


def read_source(path: Path) -> Source:
    """Reads a file by what its name ends with.

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
    return reader(path)


def _text(path: Path) -> Source:
    return read_text(path, _ending(path))


def _ending(path: Path) -> str:
    count = 2 if path.suffix.lower() in COMPRESSED else 1
    return "".join(path.suffixes[-count:]).lower()


def _framed(
    what: str,
    read: Callable[[Path], pd.DataFrame],
    write: Callable[[pd.DataFrame, Path], None],
) -> Callable[[Path], Source]:
    """A reader of a format that pandas knows. An index with names is left aside."""

    def reader(path: Path) -> Source:
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


def _excel(path: Path) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a sheet has beside cells, such as rules
        return pd.read_excel(path, engine="openpyxl", keep_default_na=False, na_values=[""])


_read_excel = _framed(
    "Excel", _excel, lambda frame, path: frame.to_excel(path, index=False, engine="openpyxl")
)


def _json(path: Path) -> Source:
    """A list of records, or a record a line."""
    text = path.read_text(encoding="utf-8-sig", errors="strict")
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        whole = path.suffix.lower() == ".json" and not _is_record(lines[0])
        records = json.loads(text) if whole else [json.loads(line) for line in lines]
        frame = pd.DataFrame(records)
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path}: not readable as JSON, a list of records or a record a line: "
            f"{first_line(error)}"
        ) from error
    names = [str(column) for column in frame.columns]
    origin = Records(_ending(path), records, whole, len(frame))
    return Source(frame.set_axis(names, axis=1), tuple(names), origin)


def _is_record(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _arff(path: Path) -> Source:
    """Names from the header, and comma-separated fields; not the sparse kind."""
    lines, encoding = load_text(path)
    start = next((i for i, line in enumerate(lines) if re.match(r"(?i)\s*@data\b", line)), None)
    declared = [re.match(r"(?i)\s*@attribute\s+(.*)", line) for line in lines[:start]]
    names = [_arff_name(found[1]) for found in declared if found]
    if start is None or not names:
        raise DataError(f"{path}: not readable as ARFF: there is no @attribute or no @data.")
    rows = [line for line in lines[start + 1 :] if line.strip() and line.lstrip()[0] != "%"]
    if any(line.lstrip().startswith("{") for line in rows[:1]):
        raise DataError(f"{path}: sparse ARFF is not read; save it as CSV.")
    quote = "'" if any("'" in line for line in rows) else '"'
    layout = Layout(",", False, False, True, quote)
    origin = Lines(_ending(path), lines[: start + 1], rows, layout, encoding)
    source = read_fields(path, rows, names, origin)
    if len(next(csv.reader(rows[:1], quotechar=quote), names)) != len(names):
        raise DataError(f"{path}: not readable as ARFF: rows have other fields than declared.")
    return source


def _arff_name(rest: str) -> str:
    found = re.match(r"'([^']*)'|\"([^\"]*)\"|(\S+)", rest.strip())
    return next((group for group in found.groups() if group), "") if found else ""


def _npz(path: Path) -> Source:
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

READERS: dict[str, Callable[[Path], Source]] = {
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
