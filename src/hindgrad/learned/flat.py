"""A tree of arrays as one vector of coordinates in JAX's default float type."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree


def size(tree: PyTree) -> int:
    """The number of coordinates."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def ravel(tree: PyTree) -> Float[Array, " coordinates"]:
    """The arrays of a tree one after another."""
    leaves = [jnp.asarray(leaf, float).reshape(-1) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves) if leaves else jnp.zeros(0)


def unravel(vector: Float[Array, " coordinates"], like: PyTree) -> PyTree[Float[Array, "..."]]:
    """The inverse of `ravel`, but for the dtypes; `like` has the shapes."""
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(vector, ends) if leaves else []
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def spread(values: PyTree[Float[Array, ""]], like: PyTree) -> Float[Array, " coordinates"]:
    """One number for each array, at all of its coordinates."""
    return ravel(jax.tree.map(lambda v, x: jnp.broadcast_to(v, x.shape), values, like))
