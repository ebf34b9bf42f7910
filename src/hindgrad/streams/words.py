"""Numbers of 64 bits as pairs of 32, since a callback's thread may not have the user's 64."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def _is_wide(x):
    return x.dtype.itemsize == 8 and x.dtype.kind in "iuf"


def sent(x: np.ndarray) -> np.ndarray:
    """An array as a callback returns it."""
    if not _is_wide(x):
        return x
    return np.ascontiguousarray(x).view(np.uint32).reshape(*x.shape, 2)


def struct(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The struct of that."""
    return jax.ShapeDtypeStruct((*x.shape, 2), jnp.uint32) if _is_wide(x) else x


def received(x: Array, like: jax.ShapeDtypeStruct) -> Array:
    """The array again."""
    return jax.lax.bitcast_convert_type(x, like.dtype) if _is_wide(like) else x
