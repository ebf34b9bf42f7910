"""Reading ahead: blocks of steps, the next of which is read while the one before is used."""

import threading
import zlib
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from hindgrad import errors, numerics, trees
from hindgrad.errors import SourceError
from hindgrad.streams import words
from hindgrad.streams.reader import Reader, failed

STEPS, BLOCK_BYTES = 8, 2**24
"""How much is read at a time for steps that ask one by one: so many, if they are within the bytes.
A run that is over has read two such blocks too many, at most."""


class Block(NamedTuple):
    """What some steps get."""

    first: int
    data: PyTree
    """Stacked over the steps."""
    fingerprint: int
    done: int
    """For how many steps it could be had."""
    error: SourceError | None
    """Why not for all."""


class Ahead:
    """Blocks of a reader. The next one, in the direction of the last two, is read in the
    background; with it, and the one used before, three are in memory."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.count = max(1, min(STEPS, BLOCK_BYTES // max(1, trees.nbytes(reader.spec))))
        self._pool = numerics.threads(1, "hindgrad-stream")
        self._lock = threading.RLock()
        self._blocks: dict[tuple[int, int], Future[Block]] = {}
        self._fingerprints: dict[tuple[int, int], int] = {}
        self._before = 0, 0

    def begin(self) -> None:
        """Forgets what was read: the rows may be others in another call, and not within one."""
        with self._lock:
            for future in self._blocks.values():
                future.cancel()
            self._blocks, self._fingerprints, self._before = {}, {}, (0, 0)

    def described(self) -> list[str]:
        """What must be the same for another call to go on with the source."""
        return self._pool.submit(self.reader.described).result()

    def step(self, t: int) -> PyTree:
        """What step `t` gets; raises `SourceError` if it cannot be had, or is other rows than the
        last time."""
        first = t - t % self.count
        block = self._block(first, self.count)
        if t - first >= block.done:
            self._fail(first, self.count, block.error)
        return jax.tree.map(lambda x: x[t - first], block.data)

    def in_callback(self, t: Any) -> PyTree:
        """The same, called by a compiled program."""
        with errors.from_callback():
            return jax.tree.map(words.sent, self.step(int(t)))

    def block(self, first: int, count: int, end: int) -> Block:
        """What steps `first` to `first + count` of a run of `end` steps get; raises as `step`."""
        block = self._block(first, count, end)
        if block.error is not None:
            self._fail(first, count, block.error)
        return block

    def zeros(self, count: int) -> Block:
        """A block of zeros, of which only the structure matters."""
        spec = self.reader.own_spec
        data = jax.tree.map(lambda x: np.zeros((count, *x.shape), x.dtype), spec)
        return Block(0, data, 0, count, None)

    def _block(self, first, count, end=None):
        with self._lock:
            block = self._reading(first, count).result()
            self._read_on(first, count, end)
            if block.error is None:
                known = self._fingerprints.setdefault((first, count), block.fingerprint)
                if known != block.fingerprint:
                    self._fail(first, count, SourceError(changed(first, count)))
            return block

    def _reading(self, first, count):
        """The block, which is being read if it is not there."""
        key = first, count
        if key not in self._blocks:
            self._blocks[key] = self._pool.submit(self._read, first, count)
        return self._blocks[key]

    def _read_on(self, first, count, end):
        """Begins to read the block after or before this one, and forgets what is far from it."""
        if (first, count) == self._before:
            return
        step = count if first >= self._before[0] else -count
        following = first + step
        near = {(first, count), self._before, (following, count)}
        self._before = first, count
        for key in set(self._blocks) - near:
            self._blocks.pop(key).cancel()
        if following >= 0 and (end is None or following + count <= end):
            self._reading(following, count)

    def _fail(self, first, count, error):
        """Raises the error; the block is read again if it is asked for once more."""
        self._blocks.pop((first, count), None)
        raise error

    def _read(self, first, count):
        data = self.zeros(count).data
        done, error = 0, None
        try:
            self.reader.check()
            for done in range(count):
                step = jax.tree.leaves(self.reader.read(first + done))
                for into, x in zip(jax.tree.leaves(data), step, strict=True):
                    into[done] = x
            done = count
        except SourceError as raised:
            error = raised
        except Exception as raised:  # whatever a foreign source may raise
            error = failed(f"The batch of step {first + done}", raised)
        fingerprint = 0
        for leaf in jax.tree.leaves(data):
            fingerprint = zlib.crc32(leaf.reshape(-1).view(np.uint8), fingerprint)
        return Block(first, data, fingerprint, done, error)


def changed(first: int, count: int) -> str:
    """What is said if some steps get other rows than before."""
    return (
        f"The source gave other rows for steps {first} to {first + count - 1} than the first time, "
        "so the hypergradient would be wrong. It must give the same row for the same number, until "
        "the call has ended: augment in the loss, by the batch's key, and not in the source."
    )
