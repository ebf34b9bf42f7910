"""Batches of rows that are read from a source with random access."""

import abc
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from hindgrad.batches import permuted_on_host
from hindgrad.checkpoint import contents
from hindgrad.errors import SourceError
from hindgrad.streams.reader import Reader, as_arrays, cast, check_like, failed, structs

REMEDY = "All rows must be alike: give decode=, a function that makes them so (by padding, say)."


class Rows(Reader):
    """Minibatches of rows, in the order of `hindgrad.minibatches` with the same key; of each, this
    process reads its `part`, and the numbers of all."""

    def __init__(self, size: int, words: np.ndarray, part: slice):
        self.size, self.words, self.n = size, words, self.length()
        self.part = part
        self.row = self.first()
        self._spec = structs(self.row)

    @abc.abstractmethod
    def length(self) -> int:
        """The number of rows now."""

    @abc.abstractmethod
    def first(self) -> PyTree:
        """The first row, as arrays."""

    @abc.abstractmethod
    def rows(self, index: Sequence[int]) -> PyTree:
        """Some rows, stacked."""

    @property
    def spec(self):
        return self._stacked(self.size)

    @property
    def own_spec(self):
        return self._stacked(self.part.stop - self.part.start)

    def _stacked(self, size):
        stacked = lambda x: jax.ShapeDtypeStruct((size, *x.shape), x.dtype)
        return jax.tree.map(stacked, self._spec), jax.ShapeDtypeStruct((self.size,), np.int32)

    def read(self, t):
        # In Python's whole numbers, which do not wrap.
        positions = [divmod(t * self.size + i, self.n) for i in range(self.size)]
        epoch = np.array([e % 2**32 for e, _ in positions], np.uint32)
        place = np.array([p for _, p in positions], np.uint32)
        index = permuted_on_host(place, epoch, self.words, self.n).astype(np.int32)
        return cast("The rows", self.rows(index[self.part].tolist()), self._spec), index

    def check(self):
        if (n := self.length()) != self.n:
            raise SourceError(
                f"The source has {n} rows now, and had {self.n} when the stream was made. Which "
                "rows a step gets depends on their number: make the stream and begin anew."
            )

    def described(self):
        words = str(self.words.tolist())
        return [f"{self.n} rows", f"{self.size} a step", words, *contents(self.read(0))]


class ArrayRows(Rows):
    """Rows of a pytree of arrays, on disk (`numpy.memmap`) or in memory."""

    def __init__(self, arrays: PyTree, size: int, words: np.ndarray, part: slice):
        self.arrays = arrays
        super().__init__(size, words, part)

    def length(self):
        return len(jax.tree.leaves(self.arrays)[0])

    def first(self):
        return as_arrays("Row 0", jax.tree.map(lambda leaf: np.asarray(leaf[0]), self.arrays))

    def rows(self, index):
        take = lambda leaf: np.asarray(leaf[np.asarray(index)])
        return jax.tree.map(take, self.arrays)


class ItemRows(Rows):
    """Rows of anything with `__len__` and `__getitem__`, each made into arrays by `decode`."""

    def __init__(
        self,
        source: Any,
        size: int,
        words: np.ndarray,
        part: slice,
        decode: Callable[[Any], PyTree] | None,
    ):
        self.source, self.decode = source, decode
        super().__init__(size, words, part)

    def length(self):
        return len(self.source)

    def first(self):
        return self._decoded(0, self._items([0])[0])

    def rows(self, index):
        items = self._items(index)
        rows = [self._decoded(i, item) for i, item in zip(index, items, strict=True)]
        for i, row in zip(index, rows, strict=True):
            check_like(f"Row {i}", row, self.row, "row 0", REMEDY)
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    def _items(self, index):
        several = getattr(self.source, "__getitems__", None)  # which torch's loaders ask for first
        if several is not None:
            try:
                return list(several(index))
            except Exception as error:
                raise failed(f"One of the rows {index}", error) from error
        return [self._item(i) for i in index]

    def _item(self, i):
        try:
            return self.source[i]
        except Exception as error:
            raise failed(f"Row {i}", error) from error

    def _decoded(self, i, item):
        try:
            row = item if self.decode is None else self.decode(item)
        except Exception as error:
            raise failed(f"Row {i}, by decode,", error) from error
        return as_arrays(f"Row {i}", row)
