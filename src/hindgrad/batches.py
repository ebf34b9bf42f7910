"""Batches as pure functions of the step, so that any step can be run again exactly."""

import warnings
from functools import partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray, PyTree, UInt32

from hindgrad import numerics, placement
from hindgrad.arguments import as_key

GOLDEN = 0x9E3779B9
"""2^32 over the golden ratio: the increment of the Weyl sequence that tells rounds apart."""


class Batch(eqx.Module):
    """What a step of training sees."""

    data: PyTree
    """The data's pytree, with the batch's rows only."""
    key: PRNGKeyArray | None
    """This step's own key, for dropout, augmentation and the like."""
    index: Int[Array, " size"] | None
    """The row numbers in the whole data; None where a loader chose the rows."""


@final
class Minibatches(eqx.Module):
    """Minibatches in a fresh order every epoch; made by `minibatches`."""

    data: PyTree
    key: PRNGKeyArray
    size: int = eqx.field(static=True)
    places: tuple[NamedSharding | None, ...] = eqx.field(static=True)
    """For each array of the data, how its rows are split over devices, if they are."""

    @property
    def split(self) -> NamedSharding | None:
        """How a batch's rows are split over devices; None if they are not."""
        found = next((place for place in self.places if place is not None), None)
        return None if found is None or self.size % placement.ways(found) else found

    def __call__(self, t: Int[ArrayLike, ""]) -> Batch:
        """The batch of step `t`, at least 0."""
        n = _length(self.data)
        if isinstance(t, (int, np.integer)) and not 0 <= t < 2**31:
            raise ValueError(f"Batch t={t}: steps are counted in 32 bits, from 0 to 2^31 − 1.")
        t = jnp.asarray(t).astype(jnp.uint32)
        with numerics.wide():
            position = t.astype(jnp.uint64) * self.size + lax.iota(jnp.uint64, self.size)
            rows = jnp.full_like(position, n)
            epoch = lax.div(position, rows).astype(jnp.uint32)
            place = lax.rem(position, rows).astype(jnp.uint32)
        index = permuted(place, epoch, jax.random.key_data(self.key), n).astype(jnp.int32)
        leaves, structure = jax.tree.flatten(self.data)
        pairs = zip(leaves, self.places, strict=True)
        data = jax.tree.unflatten(structure, [placement.chosen(x, index, s) for x, s in pairs])
        return Batch(data, jax.random.fold_in(self.key, t), index)


@final
class FullBatch(eqx.Module):
    """The whole data at every step; made by `full_batch`."""

    data: PyTree
    key: PRNGKeyArray | None
    split: NamedSharding | None = eqx.field(static=True)
    """How the rows are split over devices, if they are."""

    def __call__(self, t: Int[ArrayLike, ""]) -> Batch:
        """The batch of step `t`."""
        t = jnp.asarray(t).astype(jnp.uint32)
        key = None if self.key is None else jax.random.fold_in(self.key, t)
        return Batch(self.data, key, lax.iota(jnp.int32, _length(self.data)))


def minibatches(data: PyTree, *, size: int, key: PRNGKeyArray | int) -> Minibatches:
    """Minibatches of `data`: a pure function `t -> Batch(data, key, index)` of the step.

    The data is gone through in an order that is reshuffled every epoch. Where `size` does not
    divide the number of rows, the batch at the end of an epoch is filled up from the beginning of
    the next one, so each row comes exactly once in every epoch.

    >>> batches = hg.minibatches(jnp.arange(6) * 10, size=4, key=0)
    >>> batches(0).data.shape
    (4,)
    >>> sorted(int(i) for t in range(3) for i in batches(t).index)
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]

    **Arguments:**

    - `data`: a pytree of arrays whose first axes have the same length, the number of rows.
    - `size`: rows in a batch, from 1 to their number in the data.
    - `key`: sets the order, and the key of each batch: `jax.random.key(…)`, or a seed from 0 to
      2^32 − 1.

    **Returns:**

    `Minibatches`: called with a step (an int, or an integer scalar, traced or not) it gives a
    `Batch`. A step's order costs O(size), whatever the number of rows, and does not depend on
    `jax.enable_x64`.

    Where the rows are split over the devices of a mesh, so is each batch, if their number divides
    `size` (a warning says if not): each device computes its own share, of the same batches.

    Raises `ValueError` if the data has no arrays or arrays of different lengths, or if `size` or
    `key` is out of range.
    """
    data, n = _checked("minibatches", data)
    if not 1 <= size <= n:
        raise ValueError(
            f"minibatches(size={size}) of data with {n} rows: give a size from 1 to {n}, or use "
            "full_batch(data) for all rows at every step."
        )
    places = placement.of_all_rows(jax.tree.leaves(data))
    _check_divided(size, places)
    return Minibatches(data, as_key("minibatches", key), size, places)


def _check_divided(size, places):
    """Warns if a batch cannot be split over the devices as the rows are."""
    for ways in {placement.ways(place) for place in places if place is not None}:
        if size % ways:
            warnings.warn(
                f"minibatches(size={size}): the rows are split over {ways} devices, whose number "
                f"does not divide it, so every device computes the whole batch. Give a multiple of "
                f"{ways}.",
                stacklevel=3,
            )


def full_batch(data: PyTree, *, key: PRNGKeyArray | int | None = None) -> FullBatch:
    """All of `data` at every step: a pure function `t -> Batch(data, key, index)` of the step.

    >>> batches = hg.full_batch({"x": jnp.ones((3, 2)), "y": jnp.zeros(3)})
    >>> batches(7).index.tolist()
    [0, 1, 2]

    **Arguments:**

    - `data`: a pytree of arrays whose first axes have the same length, the number of rows.
    - `key`: from which each batch gets its key, a `jax.random.key(…)` or a seed; without it, the
      batches' `key` is None.

    Raises `ValueError` if the data has no arrays, or arrays of different lengths.
    """
    data, _ = _checked("full_batch", data)
    places = map(placement.rows, jax.tree.leaves(data))
    split = next((place for place in places if place is not None), None)
    return FullBatch(data, None if key is None else as_key("full_batch", key), split)


@partial(jax.jit, static_argnums=3)
def permuted(
    place: UInt32[Array, " size"],
    epoch: UInt32[Array, " size"],
    words: UInt32[Array, " words"],
    n: int,
) -> UInt32[Array, " size"]:
    """Where a permutation of 0 … n − 1, one for each key and epoch, takes some places.

    The swap-or-not shuffle (Hoang, Morris & Rogaway 2012, Fig. 1): each round pairs x with
    turn − x (mod n) and exchanges the two or not, by one hashed bit of the pair. It works on any
    n without walking through values beyond it, and on each place alone.

    A place that has moved in some round is uniform, so one place is 2^-rounds from uniform, and
    two places about twice that, for every n. The log2(n) rounds on top keep pairs that share all
    their bits (and so their distance) few against those at the same distance by chance.
    """
    bits, turns = epoch, _mix(epoch + np.uint32(GOLDEN))
    for i in range(words.shape[0]):
        turns = _mix(turns ^ words[i])
        bits = _mix(bits + turns)
    modulus = jnp.full_like(place, n)

    def exchange(i, x):
        weyl = jnp.asarray(i).astype(jnp.uint32) * np.uint32(GOLDEN)  # an int without jit
        mirrored = lax.rem(_mix(turns + weyl), modulus) - x
        mirrored = jnp.minimum(mirrored, mirrored + modulus)  # below 0 it has wrapped
        swap = _mix(jnp.maximum(x, mirrored) + (bits + weyl)) >= np.uint32(2**31)
        return jnp.where(swap, mirrored, x)

    # Two halves in a loop: all unrolled, XLA would fuse the rounds into the gather of the rows
    # and repeat them for every element of a row. More passes would only cost time.
    return lax.fori_loop(0, 2 * _half(n), exchange, place, unroll=_half(n))


def permuted_on_host(
    place: UInt32[np.ndarray, " size"],
    epoch: UInt32[np.ndarray, " size"],
    words: UInt32[np.ndarray, " words"],
    n: int,
) -> UInt32[np.ndarray, " size"]:
    """The same as `permuted`, by NumPy: within a callback JAX must not be called."""
    bits, turns = epoch, _mix(epoch + np.uint32(GOLDEN))
    for word in words:
        turns = _mix(turns ^ word)
        bits = _mix(bits + turns)
    weyl = np.zeros(1, np.uint32)
    for _ in range(2 * _half(n)):
        mirrored = _mix(turns + weyl) % np.uint32(n) - place
        mirrored = np.minimum(mirrored, mirrored + np.uint32(n))
        swap = _mix(np.maximum(place, mirrored) + (bits + weyl)) >= np.uint32(2**31)
        place = np.where(swap, mirrored, place)
        weyl = weyl + np.uint32(GOLDEN)
    return place


def _half(n):
    """Half of the rounds."""
    return 6 + (n.bit_length() + 1) // 2


def _mix(x: UInt32[Any, "*shape"]) -> UInt32[Any, "*shape"]:
    """A hash of 32 bits, a bijection: Wellons' "lowbias32" (hash-prospector, 2018)."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def _length(data):
    return jax.tree.leaves(data)[0].shape[0]


def _checked(caller, data):
    """The data as JAX arrays, and their common length."""
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise ValueError(f"{caller} was given data without any array: {data!r}.")
    lengths = {}
    for path, leaf in leaves:
        name = "data" + jax.tree_util.keystr(path)
        if not isinstance(leaf, (jax.Array, np.ndarray)) or leaf.ndim == 0:
            raise ValueError(
                f"{caller}: {name} is {leaf!r}, which has no rows. Data is arrays with one row "
                "for each example; let the loss close over anything else."
            )
        lengths[name] = leaf.shape[0]
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"{caller}: the arrays differ in their number of rows: {found}.")
    n = leaves[0][1].shape[0]
    if not 1 <= n < 2**31:
        raise ValueError(f"{caller} was given {n} rows; from 1 to 2^31 − 1 can be numbered.")
    return jax.tree.map(jnp.asarray, data), n
