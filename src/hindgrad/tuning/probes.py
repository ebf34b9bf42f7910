"""Numbers by which objectives and optimizers, which cannot be compared, are distinguished."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from hindgrad import programs, trees
from hindgrad.tuning.outer import outer_update

PROBES = (1.0, 30.0, 0.1, -1.0)
"""The sizes of the gradients that an optimizer is shown."""


def measures(tree: PyTree) -> list[float]:
    """The norm of a tree of floats, and its product with fixed numbers."""
    product = sum(jnp.sum(_real(x) * _real(y)) for x, y in _pairs(tree, _pattern(tree)))
    return [float(trees.norm(tree)), float(product)]


def moves(optimizer: optax.GradientTransformation, params: PyTree) -> list[float]:
    """What an optimizer makes of some gradients, one after the other."""
    return [float(x) for x in _moves(optimizer, params)]


@programs.compiled
def _moves(optimizer, params) -> list[Float[Array, ""]]:
    memory, norms = optimizer.init(params), []
    for size in PROBES:
        grads = jax.tree.map(lambda x, size=size: jnp.asarray(size, x.dtype) * x, _pattern(params))
        updates, memory = outer_update(optimizer, grads, memory, params, jnp.float32(abs(size)))
        norms.append(trees.norm(updates))
    return norms


def _pattern(tree):
    """Fixed numbers of all signs and sizes up to 1, in the shapes of a tree."""
    numbers = lambda x: jnp.sin(1.0 + jnp.arange(x.size, dtype=jnp.float32)).reshape(x.shape)
    return jax.tree.map(lambda x: numbers(x).astype(x.dtype), tree)


def _pairs(a, b):
    return zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)


def _real(x):
    return jnp.real(x).astype(jnp.float32)
