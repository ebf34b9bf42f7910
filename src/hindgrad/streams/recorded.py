"""Batches of a loader, recorded as they come, so that any of them can be read again."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hindgrad import trees
from hindgrad.arguments import as_folder
from hindgrad.checkpoint import contents
from hindgrad.errors import SourceError
from hindgrad.files import locked, read_json, write_json
from hindgrad.streams.reader import Reader, as_arrays, cast, check_like, failed, structs

REMEDY = "All batches must be alike: let the loader drop the last, shorter one (drop_last=True)."


class Recording(Reader):
    """The batches of an iterable, in a file of records of one size."""

    def __init__(self, loader: Iterable[Any], directory: str | Path | None):
        self._loader, self._drawn = loader, 0
        self._iterator: Iterator[Any] | None = None
        self._failure: SourceError | None = None
        if directory is None:
            directory = tempfile.mkdtemp(prefix="hindgrad-")
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        folder = as_folder("recorded(directory)", directory)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "batches"
        self._path.touch()
        first = self._next()
        if first is None:
            raise ValueError("recorded(loader): the loader is empty: it gave no batch at all.")
        self._first, self._spec = first, structs(first)
        self._bytes = max(1, trees.nbytes(self._spec))
        with locked(self._path, wait=True):
            _check_same(folder, str(self._spec))
        self._append(first)

    @property
    def spec(self):
        return self._spec, None

    @property
    def count(self) -> int:
        """How many batches are recorded; a part of one that a kill left does not count."""
        return self._path.stat().st_size // self._bytes

    def read(self, t):
        while self.count <= t:
            batch = self._next()
            if batch is None:
                raise SourceError(
                    f"The loader gave {self._drawn} batches, and the run has more steps. Give one "
                    "that begins again by itself, or fewer steps."
                )
            self._append(batch)
        with self._path.open("rb") as file:
            file.seek(t * self._bytes)
            leaves = [
                np.frombuffer(file.read(x.size * x.dtype.itemsize), x.dtype).reshape(x.shape)
                for x in jax.tree.leaves(self._spec)
            ]
        return jax.tree.unflatten(jax.tree.structure(self._spec), leaves), None

    def check(self):
        """A record does not change."""

    def described(self):
        return ["recorded", *contents(self.read(0))]

    def _next(self):
        """The loader's next batch, as arrays; None after its last."""
        if self._failure is not None:  # an iterator that has raised is at its end
            raise self._failure
        name = f"Batch {self._drawn} of the loader"
        try:
            self._iterator = iter(self._loader) if self._iterator is None else self._iterator
            batch = next(self._iterator)
        except StopIteration:
            return None
        except Exception as error:
            self._failure = failed(name, error)
            raise self._failure from error
        batch = as_arrays(name, batch)
        if self._drawn:
            check_like(name, batch, self._first, "batch 0", REMEDY)
        self._drawn += 1
        return batch

    def _append(self, batch):
        """Records the batch just drawn, unless another call has, before or beside this one."""
        leaves = jax.tree.leaves(cast("The batch", batch, self._spec))
        with locked(self._path, wait=True):
            if self.count >= self._drawn:
                return
            if self.count < self._drawn - 1:
                raise SourceError(
                    f"{self._path} has lost batches since this call began: it holds {self.count} "
                    f"of the {self._drawn - 1} that the loader gave. Begin again."
                )
            with self._path.open("r+b") as file:
                file.seek(self.count * self._bytes)
                file.truncate()
                file.write(b"".join(np.ascontiguousarray(x).tobytes() for x in leaves))


def _check_same(folder, spec):
    """Raises `ValueError` if a folder holds batches of another loader."""
    path = folder / "batches.json"
    if not path.exists():
        write_json(path, spec)
    elif read_json(path) != spec:
        raise ValueError(
            f"recorded(directory={str(folder)!r}) holds batches like {read_json(path)}, and the "
            f"loader gives ones like {spec}. Name another directory."
        )
