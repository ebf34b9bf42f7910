"""Streams: batches that are read on the host, as functions of the step."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, PyTree

from hindgrad import placement
from hindgrad.arguments import as_key, as_whole
from hindgrad.batches import Batch
from hindgrad.errors import SourceError
from hindgrad.streams import words
from hindgrad.streams.ahead import Ahead, Block
from hindgrad.streams.recorded import Recording
from hindgrad.streams.rows import ArrayRows, ItemRows


class Fetch:
    """What a stream holds an `Ahead` by. Programs hold that itself, as long as they live."""

    def __init__(self, ahead: Ahead):
        self.ahead = ahead

    def __call__(self, t: Any) -> PyTree:
        return self.ahead.step(int(t))

    def __reduce__(self):
        raise TypeError(
            "A stream cannot be copied or pickled: it reads ahead in a thread of this process. "
            "Make it anew, by hg.stream(source, …), where it is used."
        )


@final
class Stream(eqx.Module):
    """Batches that are read on the host; made by `stream` and `recorded`."""

    fetch: Callable[[Any], PyTree]
    """A `Fetch`: programs are dropped with it, and it is held by the stream alone."""
    key: PRNGKeyArray | None
    split: NamedSharding | None = eqx.field(static=True)
    """How a batch's rows are split over devices; None if they are not."""

    @property
    def ahead(self) -> Ahead:
        """What reads ahead."""
        return self.fetch.ahead  # pyright: ignore[reportFunctionMemberAccess]

    def __call__(self, t: Int[ArrayLike, ""]) -> Batch:
        """The batch of step `t`; where that is traced, by a callback."""
        if isinstance(t, Tracer):
            spec = self.ahead.reader.spec
            sent = jax.tree.map(words.struct, spec)
            fetch = self.ahead.in_callback
            got = jax.pure_callback(fetch, sent, t, vmap_method="sequential")
            data, index = jax.tree.map(words.received, got, spec)
            got = jax.tree.map(lambda x: placement.at(x, self.split), data), index
        else:
            number = int(np.asarray(t))
            if not 0 <= number < 2**31:
                raise ValueError(f"Batch t={number}: steps are counted from 0 to 2^31 − 1.")
            got = jax.tree.map(jnp.asarray, self.fetch(number))
        return _batch(got, self.key, jnp.asarray(t, jnp.int32))


@final
class Steps(eqx.Module):
    """The batches of some steps of a stream, in memory."""

    first: Int[Array, ""]
    data: PyTree
    """What the steps get, stacked."""
    key: PRNGKeyArray | None
    split: NamedSharding | None = eqx.field(static=True)
    """How a batch's rows are split over devices; None if they are not."""

    def __call__(self, t: Int[Array, ""]) -> Batch:
        """The batch of step `t`."""
        at = lambda x: jax.lax.dynamic_index_in_dim(x, t - self.first, keepdims=False)
        return _batch(jax.tree.map(at, self.data), self.key, t)

    @staticmethod
    def of(stream: Stream, block: Block) -> "Steps":
        """Those of a block."""
        data, index = block.data
        if (split := stream.split) is not None:
            over = NamedSharding(split.mesh, PartitionSpec(None, split.spec[0]))
            place = jax.make_array_from_process_local_data
            size = len(index[0])
            data = jax.tree.map(lambda x: place(over, x, (len(x), size, *x.shape[2:])), data)
        return Steps(jnp.int32(block.first), (data, index), stream.key, split)


def _batch(got, key, t):
    data, index = got
    return Batch(data, None if key is None else jax.random.fold_in(key, t), index)


def stream(
    source: Any,
    *,
    size: int,
    key: PRNGKeyArray | int,
    decode: Callable[[Any], PyTree] | None = None,
    split: NamedSharding | None = None,
) -> Stream:
    """Minibatches of a source that need not be in memory: a function `t -> Batch(data, key, index)`
    of the step.

        batches = hg.stream(np.memmap("x.bin", np.float32, shape=(10**8, 64)), size=256, key=0)

    The order is that of `hg.minibatches(data, size=size, key=key)`: another one every epoch, each
    row once. Rows are read on the host, blocks of steps ahead of their use. `hg.hypergradient`
    gives a segment's batches to the device at once; elsewhere each step asks for its own by a
    callback, which costs .1 to .3 ms.

    **Arguments:**

    - `source`: a pytree of arrays with one row for each example (`numpy.memmap`, say); or anything
      with `__len__` and `__getitem__`, such as a `grain.MapDataset` or a data set of torch or
      Hugging Face, whose rows are pytrees of numbers and arrays. The same number must give the
      same row: where the rows change between two reads, an error is raised.
    - `size`: rows in a batch, from 1 to their number in the source.
    - `key`: sets the order, and the key of each batch: `jax.random.key(…)`, or a seed.
    - `decode`: a function that makes a pytree of arrays of one row, on the host.
    - `split`: how a batch's rows are split over devices, `NamedSharding(mesh, P("data"))`. Of
      several processes each then reads its own rows only, for `hg.hypergradient`.

    In memory are three blocks at a time: in a segment, its steps' batches each; elsewhere 16 MiB
    each, or one batch if that is larger.

    Raises `ValueError` for a source without rows, without random access, or whose first row is no
    pytree of numbers; while it runs, `RuntimeError` for a row that cannot be read or is unlike the
    first, with its number.
    """
    if isinstance(key, Tracer):
        raise ValueError(
            "stream(key=…) is traced, and a stream is read by the host. Make the stream outside of "
            "the function that draws the training."
        )
    size = as_whole("stream", "size", size)
    with jax.ensure_compile_time_eval():  # a stream may be made while a program is traced
        seed = as_key("stream", key)
        key_data = np.asarray(jax.random.key_data(seed)).ravel()
    arrays = _is_arrays(source)
    n = _checked_length(source, arrays)
    if size > n:
        raise ValueError(f"stream(size={size}) of a source with {n} rows: give at most {n}.")
    part = _own_part(split, size)
    try:
        if arrays and decode is None:
            reader = ArrayRows(source, size, key_data, part)
        else:
            items = _ByRow(source, n) if arrays else source
            reader = ItemRows(items, size, key_data, part, decode)
    except SourceError as error:
        raise ValueError(f"stream(source): {error}") from error
    return Stream(Fetch(Ahead(reader)), seed, split)


def _own_part(split, size):
    """Which rows of a batch this process reads."""
    if split is None:
        return slice(0, size)
    if not isinstance(split, NamedSharding) or not any(split.spec[:1]):
        raise ValueError(
            f"stream(split={split!r}): how rows are split is needed, NamedSharding(mesh, P(axis))."
        )
    if size % placement.ways(split):
        raise ValueError(
            f"stream(size={size}, split=…): rows are split over {placement.ways(split)} devices. "
            "Give a multiple of that."
        )
    return placement.own_part(split, size)


def recorded(
    loader: Iterable[Any],
    *,
    key: PRNGKeyArray | int | None = None,
    directory: str | Path | None = None,
) -> Stream:
    """The batches of any loader as a function of the step, `t -> Batch(data, key, None)`: each is
    drawn once, when the run first needs it, and written to a file, from which it is read again.

        batches = hg.recorded(torch.utils.data.DataLoader(…, drop_last=True))

    **Arguments:**

    - `loader`: an iterable of batches, pytrees of numbers and arrays of always the same shapes and
      dtypes; it must give as many as the run has steps.
    - `key`: from which each batch gets its key, a `jax.random.key(…)` or a seed; without it, the
      batches' `key` is None.
    - `directory`: where the file is, to be used again by another call (its loader is drawn as far,
      and goes on from there); a temporary one unless given, which goes with the process. It takes
      the bytes of a batch for each step. Calls side by side may share it: each batch is that of
      the first of them to need it.

    `batch.index` is None: which rows a loader chose only it knows. Where weights of examples need
    it, let the loader give the rows' numbers as a part of the batch.

    Raises `ValueError` if the loader is empty or its first batch is no pytree of numbers; while it
    runs, `RuntimeError` if it ends early, raises, or gives another kind of batch.
    """
    try:
        reader = Recording(loader, directory)
    except SourceError as error:
        raise ValueError(f"recorded(loader): {error}") from error
    return Stream(Fetch(Ahead(reader)), None if key is None else as_key("recorded", key), None)


class _ByRow:
    """A pytree of arrays, row by row."""

    def __init__(self, arrays, n):
        self.arrays, self.n = arrays, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return jax.tree.map(lambda leaf: leaf[i], self.arrays)


def _is_arrays(source):
    if isinstance(source, Iterator):
        return False
    leaves = jax.tree.leaves(source)
    return bool(leaves) and all(isinstance(x, (np.ndarray, jax.Array)) for x in leaves)


def _checked_length(source, is_arrays):
    if is_arrays:
        shapes = [x.shape for x in jax.tree.leaves(source)]
        lengths = {shape[0] if shape else 0 for shape in shapes}
        if len(lengths) > 1:
            raise ValueError(f"stream: the arrays differ in their number of rows: {shapes}.")
        (n,) = lengths
    elif isinstance(source, (dict, tuple)) and source:
        kinds = sorted({type(leaf).__name__ for leaf in jax.tree.leaves(source)})
        raise ValueError(
            f"stream(source) is a {type(source).__name__} of {kinds}, and one of NumPy or JAX "
            "arrays is needed. For others (of h5py or zarr, say) give one object, whose "
            "__getitem__ returns a row and __len__ their number."
        )
    elif hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        n = len(source)
    else:
        raise ValueError(
            f"stream(source={source!r:.80}) has no random access (__len__ and __getitem__). For an "
            "iterable of batches, such as a loader, use hg.recorded."
        )
    if not 1 <= n < 2**31:
        raise ValueError(
            f"stream was given a source of {n} rows; from 1 to 2^31 − 1 can be numbered. (Give a "
            "data set that does not repeat itself: the stream begins a new epoch by itself.)"
        )
    return n
