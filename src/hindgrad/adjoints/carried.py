"""Any arrays as floats, and back to the bit: cotangents carry nothing else."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def as_floats(tree: PyTree) -> PyTree:
    """Floats as they are; integers, booleans and keys byte by byte."""

    def convert(x):
        x = jax.random.key_data(x) if _is_key(x) else x
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        x = x.astype(jnp.uint8) if x.dtype == bool else x
        return jax.lax.bitcast_convert_type(x, jnp.uint8).astype(jnp.float32)

    return jax.tree.map(convert, tree)


def from_floats(floats: PyTree, like: PyTree) -> PyTree:
    """The inverse of `as_floats`; `like` has arrays of the dtypes to get back."""

    def convert(x, like):
        if _is_key(like):
            data = convert(x, jax.random.key_data(like))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like))
        if jnp.issubdtype(like.dtype, jnp.inexact):
            return x
        whole = jax.lax.bitcast_convert_type(
            x.astype(jnp.uint8), jnp.uint8 if like.dtype == bool else like.dtype
        )
        return whole.astype(like.dtype)

    return jax.tree.map(convert, floats, like)


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
