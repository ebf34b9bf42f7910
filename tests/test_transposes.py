"""Sums of products, transposed term by term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.jaxprs import equations, rewritten
from hindgrad.transposes import SUMS, products_transposed

X, Y, Z = (np.random.default_rng(seed).normal(size=(5, 3)).astype(np.float32) for seed in range(3))


def cheaply_transposed(function):
    return rewritten(function, products_transposed)


def in_a_loop(x, y, z):
    body = lambda carry, _: (carry + (x.T @ y + y.T @ z).T, None)
    return jax.lax.scan(body, jnp.zeros((3, 3)), length=3)[0]


def used_twice(x, y, z):
    total = x.T @ y + y.T @ z
    return total.T, total


CASES = {
    "two": lambda x, y, z: (x.T @ y + y.T @ z).T,
    "three, and a difference": lambda x, y, z: (x.T @ y - (y.T @ z + z.T @ x)).T,
    "with a number": lambda x, y, z: (x.T @ y + 2.0).T,
    "axes": lambda x, y, z: jnp.transpose(x[:, None] + y[:, None], (2, 0, 1)) * z.T[:, :, None],
    "within jit": lambda x, y, z: jax.jit(lambda x, y: (x.T @ y + y.T @ x).T)(x, y) @ z.T,
    "in a loop": in_a_loop,
    "used twice": used_twice,
    "handed through": lambda x, y, z: (x, (y + z).T, y.T),
}


@pytest.mark.parametrize("function", CASES.values(), ids=CASES)
def test_the_same(function):
    found, wanted = cheaply_transposed(function)(X, Y, Z), function(X, Y, Z)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


def transposed(function, *args):
    """What computes the operands of the transposes in a program."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    sources = {v: e.primitive.name for e in equations(jaxpr) for v in e.outvars}
    return {sources.get(e.invars[0]) for e in equations(jaxpr) if e.primitive.name == "transpose"}


@pytest.mark.parametrize("name", ["two", "three, and a difference", "within jit", "in a loop"])
def test_products_are_transposed_and_not_their_sum(name):
    assert "dot_general" in transposed(cheaply_transposed(CASES[name]), X, Y, Z)
    assert SUMS.isdisjoint(transposed(cheaply_transposed(CASES[name]), X, Y, Z))
    assert not SUMS.isdisjoint(transposed(CASES[name], X, Y, Z))


def test_the_derivative_of_a_gradient_transposes_no_sum():
    loss = lambda w: jnp.sum(jnp.tanh(jnp.tanh(X @ w["in"]) @ w["out"]) ** 2)
    w = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}
    _, tangent = jax.linearize(jax.grad(loss), w)
    assert not SUMS.isdisjoint(transposed(tangent, w))
    assert SUMS.isdisjoint(transposed(cheaply_transposed(tangent), w))
    found, wanted = cheaply_transposed(tangent)(w), tangent(w)
    for name in w:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5)
