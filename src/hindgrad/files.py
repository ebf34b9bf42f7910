"""Files that are there whole or not at all, with the same bytes for the same content."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

NUMBERS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}
"""The numbers that JSON does not have, as {"float": "nan"} in our files."""


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file that is there either whole or as it was before."""
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name without its content
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keeps other calls out of a directory or a file; the system ends it with the process.

    Raises `BlockingIOError` if another call holds it, unless this one is to `wait` for it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # a file system that has no locks
            pass
        yield
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Writes numbers, texts, lists and dictionaries; NaN and infinities survive."""
    write_whole(path, _dumped(value, indent=1).encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote; `ValueError` if it is damaged."""
    return json.loads(path.read_bytes(), object_hook=_number)


def as_json(value: Any) -> Any:
    """A value as `read_json` gives it back: tuples and arrays are lists, keys are texts."""
    return json.loads(_dumped(value), object_hook=_number)


def write_arrays(
    path: Path, arrays: Mapping[str, Any], notes: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file of arrays by name, with notes by name.

    Raises `ValueError` if an array is of a type that the format does not have.
    """
    content = safetensors.numpy.save({name: _plain(name, a) for name, a in arrays.items()})
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    if notes:  # safetensors itself writes several notes in random order
        header = {"__metadata__": dict(sorted(notes.items()))} | header
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_whole(path, len(text).to_bytes(8, "little") + text + rest)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a safetensors file, and its notes.

    Raises `ValueError` if the file is damaged.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, file.metadata() or {}
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not readable as safetensors, perhaps damaged.") from error


def _plain(name: str, array: Any) -> np.ndarray:
    """The array in the machine's byte order and the order of C, without which safetensors writes
    other values than the array has."""
    array = np.asarray(array)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise ValueError(
            f"The array {name!r} is {array.dtype}, which a safetensors file cannot hold; convert "
            "it to float32."
        )
    return array.astype(array.dtype.newbyteorder("="), order="C", copy=False)


def _dumped(value: Any, indent: int | None = None) -> str:
    return json.dumps(_jsonable(value), indent=indent, allow_nan=False) + "\n"


def _jsonable(value: Any) -> Any:
    if hasattr(value, "tolist"):  # arrays and their numbers
        value = value.tolist()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, Mapping):
        return {name: _jsonable(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value


def _number(value: dict[str, Any]) -> Any:
    if value.keys() == {"float"} and value["float"] in NUMBERS:
        return NUMBERS[value["float"]]
    return value
