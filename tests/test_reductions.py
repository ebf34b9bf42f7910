"""Sums over whole arrays, as products with ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.jaxprs import equations, rewritten
from hindgrad.reductions import LEAST, sums_as_products

SHAPES = [(LEAST,), (LEAST + 37,), (100, 70), (3000, 5), (4, 30, 512), (7, 2, 3000), (300_000,)]
SUMS = {
    "sum": lambda x: jnp.sum(x**2),
    "vdot": lambda x: jnp.vdot(x, x),
    "tensordot": lambda x: jnp.tensordot(x, x, x.ndim),
    "mean": lambda x: jnp.mean(jnp.abs(x)),
    "in a loop": lambda x: jax.lax.fori_loop(0, 3, lambda i, s: s + jnp.sum(x * i), 0.0),
    "within jit": lambda x: jax.jit(jnp.sum)(x),
}


def names(function, *args):
    jaxpr = jax.make_jaxpr(rewritten(function, sums_as_products))(*args).jaxpr
    return {
        e.primitive.name
        for e in equations(jaxpr)
        if any(getattr(v.aval, "size", 0) >= LEAST for v in e.invars)
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SUMS)
def test_values_and_derivatives(x64, name, shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    function = SUMS[name]
    changed = rewritten(function, sums_as_products)
    np.testing.assert_allclose(changed(x), function(x), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(changed)(x), jax.grad(function)(x), rtol=1e-12)
    both = jnp.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(changed)(both), jax.vmap(function)(both), rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["sum", "vdot", "tensordot", "in a loop", "within jit"])
def test_no_sum_over_a_large_array_is_left(name, shape):
    found = names(SUMS[name], jnp.ones(shape))
    assert "reduce_sum" not in found
    assert "dot_general" in found


@pytest.mark.parametrize(
    ("function", "of"),
    [
        (jnp.sum, jnp.ones(LEAST - 1)),
        (jnp.sum, jnp.ones(LEAST, jnp.int32)),
        (lambda x: jnp.sum(x, 0), jnp.ones((80, 80))),
        (lambda x: jnp.tensordot(x, x, ((0, 1), (1, 0))), jnp.ones((80, 80))),
    ],
    ids=["small", "whole numbers", "an axis", "transposed"],
)
def test_others_stay(function, of):
    before = jax.make_jaxpr(function)(of)
    assert str(jax.make_jaxpr(rewritten(function, sums_as_products))(of)) == str(before)


def test_functions_with_derivatives_of_their_own_stay():
    @jax.custom_jvp
    def total(x):
        return jnp.sum(x)

    total.defjvp(lambda primals, tangents: (total(*primals), 3 * jnp.sum(tangents[0])))
    x = jnp.ones(2 * LEAST)
    found = jax.grad(rewritten(total, sums_as_products))(x)
    np.testing.assert_array_equal(found, 3.0)


def test_precision():
    """No worse than NumPy's pairwise sum by more than a few units of the last digit."""
    x = np.random.default_rng(0).random(2**20, np.float32)
    found = float(rewritten(jnp.sum, sums_as_products)(jnp.asarray(x)))
    assert abs(found / np.sum(x, dtype=np.float64) - 1) < 4 * np.finfo(np.float32).eps
