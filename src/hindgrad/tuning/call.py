"""What a long call was given, told so that an interrupted one goes on with the same only."""

import hashlib
import math
import re
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from hindgrad import programs, trees
from hindgrad.tuning.outer import outer_update

PROBES = (1.0, 30.0, 0.1, -1.0)
"""The sizes of the gradients that an optimizer is shown."""
TOLERANCE = 1e-3
"""How far, relatively, numbers may be apart: another machine rounds otherwise."""


class Call(NamedTuple):
    """What must be the same for a call to go on."""

    arguments: dict[str, Any]
    """Those that can be compared."""
    numbers: dict[str, list[float]]
    """Functions cannot be compared; what tells them apart is the first numbers that they give."""


def difference(saved: dict[str, Any], call: dict[str, Any]) -> str | None:
    """The name of the first argument in which two calls differ, as they come back from JSON."""
    for name, value in call["arguments"].items():
        if saved["arguments"].get(name) != value:
            return name
    for name, numbers in call["numbers"].items():
        others = saved["numbers"].get(name, [])
        if len(others) != len(numbers) or not all(map(_is_close, others, numbers)):
            return name
    return None


def _is_close(a, b):
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12) or (a != a and b != b)


def described(value: Any) -> str:
    """An object in words that are the same in the next process."""
    return re.sub(r" at 0x[0-9a-f]+", "", eqx.tree_pformat(value, short_arrays=False))


def contents(tree: PyTree) -> list[str]:
    """What a tree holds: its structure, and each array's shape, dtype and a digest of its bytes."""
    return [described(jax.tree.structure(tree)), *map(_content, jax.tree.leaves(tree))]


def _content(leaf):
    if not eqx.is_array_like(leaf) or isinstance(leaf, (bool, int, float, complex)):
        return described(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{list(array.shape)} {digest[:16]}"


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
