"""Loops of an exact run stay loops of several kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.anchors import anchored
from hindgrad.reproducible import reproducible


@pytest.mark.parametrize(
    "value", [np.float32(-0.0), np.float32(np.nan), np.int32(7), np.ones((2, 3))]
)
def test_anchored_is_the_same(value):
    np.testing.assert_array_equal(jax.jit(anchored)(value), value)


def test_anchored_passes_derivatives():
    slope = jax.grad(lambda x: jnp.sum(anchored(x) ** 2))(jnp.arange(3.0))
    np.testing.assert_array_equal(slope, [0.0, 2.0, 4.0])


SCATTERED = lambda x: x.at[jnp.int32(x[:2])].add(1.0)


@pytest.mark.parametrize("other", [lambda x: x, SCATTERED], ids=["nothing", "scatter"])
@pytest.mark.parametrize("shape", [(8, 128), (8, 128, 4)], ids=["vector", "matrix"])
def test_products_in_a_small_loop_do_not_depend_on_what_else_is_in_it(key, shape, other):
    """A scatter in it keeps XLA's CPU compiler from making one kernel of the loop."""
    rows = jax.random.normal(key, (64, shape[1]))
    vectors = jax.random.normal(jax.random.fold_in(key, 1), shape) / 10

    def products(vectors, beside):
        def step(carry, v):
            return other(carry) if beside else carry, rows @ v

        return jax.lax.scan(step, jnp.zeros(4), vectors)

    found = [
        jax.jit(lambda v, b=beside: reproducible(lambda v: products(v, b), v))(vectors)
        for beside in (False, True)
    ]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("shape", [(8, 128), (8, 128, 4)], ids=["vector", "matrix"])
def test_an_anchor_holds_whichever_result_is_needed(key, shape):
    """What only the others need is removed from a program."""
    rows = jax.random.normal(key, (64, shape[1]))
    vectors = jax.random.normal(jax.random.fold_in(key, 1), shape) / 10

    def scattered(total, v):
        return total.at[jnp.int32(total[:2])].add(v.reshape(-1)[:2]), rows @ v

    loop = lambda vectors: jax.lax.scan(scattered, jnp.zeros(4), vectors)
    both = jax.jit(lambda v: reproducible(loop, v))(vectors)[1]
    only = jax.jit(lambda v: reproducible(loop, v)[1])(vectors)
    np.testing.assert_array_equal(both, only)
