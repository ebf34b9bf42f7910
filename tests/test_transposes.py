"""Sums of products, transposed term by term."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.jaxprs import equations, rewritten
from hindgrad.transposes import SUMS, contracted_last, products_transposed

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


ROWS, IN, OUT = 64, 48, 40
LEFT, RIGHT = (
    np.random.default_rng(seed).normal(size=(ROWS, n)).astype(np.float32)
    for seed, n in enumerate((IN, OUT))
)
PRODUCTS = {
    "gradient by weights": lambda x, y: jax.grad(lambda w: jnp.sum((x @ w) ** 2))(x.T @ y),
    "few classes": lambda x, y: jax.grad(lambda w: jnp.sum((x @ w) ** 2))(x.T @ y[:, :22]),
    "not transposed": lambda x, y: jax.lax.dot_general(x, y, (((0,), (0,)), ((), ()))),
    "two axes": lambda x, y: jnp.einsum("abi,abj->ij", x.reshape(8, 8, IN), y.reshape(8, 8, OUT)),
    "three, turned": lambda x, y: jnp.einsum("ai,abj->bji", x, y.reshape(ROWS, 4, 10)),
    "used twice": lambda x, y: (lambda p: p.T + p[0].sum())(x.T @ y),
    "precisions": lambda x, y: (
        jax.lax.dot_general(y, x, (((0,), (0,)), ((), ())), precision=("highest", "default")).T
    ),
    "half precision": lambda x, y: jnp.dot(
        x.T.astype(jnp.bfloat16), y.astype(jnp.bfloat16), preferred_element_type=jnp.float32
    ),
    "in a loop": lambda x, y: jax.lax.scan(
        lambda c, _: (c + jax.lax.dot_general(x, y, (((0,), (0,)), ((), ()))), None),
        jnp.zeros((IN, OUT)),
        length=2,
    )[0],
}


def first_axes_summed(function, *args):
    """How many products sum over the first axes of both operands."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    axes = [e.params["dimension_numbers"][0] for e in equations(jaxpr) if "dot" in str(e.primitive)]
    return sum(of_x[0] == 0 and of_y[0] == 0 for of_x, of_y in axes)


@pytest.mark.parametrize("name", PRODUCTS)
def test_gradients_by_weights(name):
    function = PRODUCTS[name]
    changed = rewritten(function, contracted_last)
    x, y = jnp.asarray(LEFT), jnp.asarray(RIGHT)
    np.testing.assert_allclose(changed(x, y), function(x, y), rtol=1e-4, atol=1e-4)
    assert changed(x, y).dtype == function(x, y).dtype
    if name != "used twice" and name != "half precision":  # of which the operand is transposed
        assert first_axes_summed(function, x, y) > first_axes_summed(changed, x, y) == 0
    total = lambda function: lambda x, y: jnp.sum(jnp.sin(function(x, y)))
    found, wanted = (jax.grad(total(f), (0, 1))(x, y) for f in (changed, function))
    for one, other in zip(found, wanted, strict=True):
        near = 2e-2 if name == "half precision" else 1e-3
        np.testing.assert_allclose(one, other, rtol=near, atol=near)


def test_small_products_stay():
    function = lambda x, y: jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())))
    assert first_axes_summed(rewritten(function, contracted_last), X, Y) == 1


def test_functions_with_derivatives_of_their_own_stay():
    product = jax.custom_jvp(PRODUCTS["not transposed"])
    product.defjvp(lambda primals, tangents: (product(*primals), 3 * product(*tangents)))
    assert first_axes_summed(rewritten(product, contracted_last), LEFT, RIGHT) == 1
