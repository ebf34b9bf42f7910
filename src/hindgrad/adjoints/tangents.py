"""Tangents along every element of a pytree, side by side."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import placement, trees


def directions(tree: PyTree, first: int | Int[Array, ""], count: int) -> PyTree:
    """`count` unit directions of a tree of floats, the one along its element number `first` (all
    leaves end to end) to begin with; beyond the last element they are zero. A leading axis is
    over the directions."""
    leaves, structure = jax.tree.flatten(tree)
    element = first + jnp.arange(count, dtype=jnp.int32)
    begin, units = 0, []
    for leaf in leaves:
        numbers = begin + jnp.arange(leaf.size, dtype=jnp.int32).reshape(leaf.shape)
        one = jnp.expand_dims(element, tuple(range(1, leaf.ndim + 1))) == numbers[None]
        units.append(placement.stacked_like(one.astype(leaf.dtype), leaf))
        begin += leaf.size
    return jax.tree.unflatten(structure, units)


def push(function: Callable[[PyTree], PyTree], at: PyTree, along: PyTree) -> tuple[PyTree, PyTree]:
    """`function(at)`, and its derivatives along directions with a leading axis. Only the floats
    of the result have derivatives; elsewhere there is None."""
    count = jax.tree.leaves(along)[0].shape[0]

    def floats(at):
        return eqx.partition(function(at), eqx.is_inexact_array)

    def one(direction):
        value, derivative, rest = jax.jvp(floats, (at,), (direction,), has_aux=True)
        return eqx.combine(value, rest), derivative

    if count == 1:  # a batch of one would be slower
        value, derivative = one(jax.tree.map(lambda x: x[0], along))
        return value, jax.tree.map(lambda x: x[None], derivative)
    return jax.vmap(one, out_axes=(None, 0))(along)


def jacobian(
    function: Callable[[PyTree], PyTree], at: PyTree, size: int, block: int | None
) -> tuple[PyTree, PyTree]:
    """`function(at)`, and its derivatives along all `size` elements of `at`, with a leading axis;
    computed `block` of them at a time."""
    if block is None or block >= size:
        return push(function, at, directions(at, 0, size))
    keep = lambda value, derivatives: (value, derivatives)
    values, derivatives = _over_blocks(function, at, size, block, keep)
    join = lambda x: x.reshape(-1, *x.shape[2:])[:size]
    return jax.tree.map(lambda x: x[0], values), jax.tree.map(join, derivatives)


def pulled_in_blocks(
    function: Callable[[PyTree], PyTree], at: PyTree, size: int, block: int, cotangent: PyTree
) -> PyTree:
    """The cotangent of `at` from that of `function(at)` (None where it is zero), with no more
    than `block` tangents at a time."""
    shares = _over_blocks(function, at, size, block, lambda _, ds: pull(cotangent, ds))
    return unflat(shares.ravel()[:size], at)


def _over_blocks(function, at, size, block, use):
    """`use(value, derivatives)` for each block, one after the other, stacked."""

    def one(first):
        return use(*push(function, at, directions(at, first, block)))

    return jax.lax.map(one, jnp.arange(0, size, block, dtype=jnp.int32))


def combine(weights: PyTree, derivatives: PyTree) -> PyTree:
    """The derivative along Σ weight · direction, where `weights` is a tree of floats such as the
    directions are taken over."""
    vector = flat(weights)

    def along(derivative: Float[Array, "count ..."]):
        return jnp.tensordot(vector.astype(derivative.dtype), derivative, 1)

    return jax.tree.map(along, derivatives)


def pull(cotangent: PyTree, derivatives: PyTree) -> Float[Array, " count"]:
    """The derivative of <cotangent, result> along each direction; None stands for zero."""
    share = lambda c, d: None if c is None else jnp.tensordot(d, c, c.ndim)
    shares = jax.tree.map(share, cotangent, derivatives, is_leaf=lambda x: x is None)
    return sum(jax.tree.leaves(shares), jnp.zeros(()))


def flat(tree: PyTree) -> Float[Array, " size"]:
    """All leaves end to end, in the widest of their dtypes."""
    leaves = jax.tree.leaves(tree)
    dtype = trees.common(*leaves)
    return jnp.concatenate([placement.whole(leaf).ravel().astype(dtype) for leaf in leaves])


def unflat(vector: Float[Array, " size"], like: PyTree) -> PyTree:
    """The inverse of `flat`."""
    leaves, structure = jax.tree.flatten(like)
    parts, begin = [], 0
    for leaf in leaves:
        part = vector[begin : begin + leaf.size]
        parts.append(placement.like(part.reshape(leaf.shape).astype(leaf.dtype), leaf))
        begin += leaf.size
    return jax.tree.unflatten(structure, parts)
