"""Operations with derivatives of their own: true ones, and rules that are not the derivative."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.fuzz.operations import OPERATIONS, D, named

TRUE: dict[str, Callable[..., Any]] = {}
"""Operations whose rule is their derivative."""
UNTRUE: dict[str, Callable[..., Any]] = {}
"""Operations with a rule that is not their derivative."""
_true, _untrue = partial(named, table=TRUE), partial(named, table=UNTRUE)


@jax.custom_vjp
def _sine(x, w):
    return jnp.sin(x * w)


_sine.defvjp(
    lambda x, w: (jnp.sin(x * w), (x, w)),
    lambda kept, d: (
        d * jnp.cos(kept[0] * kept[1]) * kept[1],
        jnp.sum(d * jnp.cos(kept[0] * kept[1]) * kept[0]),
    ),
)


@_true
def custom_vjp(z, p, at):
    return _sine(z, p())


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _power(n, x):
    return x**n


@_power.defjvp
def _power_jvp(n, primals, tangents):
    return primals[0] ** n, n * primals[0] ** (n - 1) * tangents[0]


@_true
def custom_jvp(z, p, at):
    return _power(2, z + p(D)[None]) / 4


@_true
def implicit_solve(z, p, at):
    """A linear map inverted by `custom_linear_solve`."""
    w = 1.5 + jnp.tanh(p(D))
    solve = lambda _, b: b / w
    return lax.custom_linear_solve(lambda x: w * x, z[0], solve, symmetric=True)[None] + z * 0.5


def _cast(dtype, z, p, at):
    if at.exact:
        return z * p(D)[None]
    return (z.astype(dtype) * p(D)[None].astype(dtype)).astype(z.dtype)


COARSE = {
    "bfloat16 cast": partial(_cast, jnp.bfloat16),
    "float32 cast": partial(_cast, jnp.float32),
}
"""Operations that round by themselves."""
ROUNDING = {*COARSE, "fused attention"}
"""Operations that compute in fewer than 64 bits."""


@jax.custom_vjp
def _clipped(x):
    return x


_clipped.defvjp(
    lambda x: (x, None),
    lambda _, d: (d * jnp.minimum(1.0, 0.3 / jnp.sqrt(1e-6 + jnp.sum(d * d))),),
)


@_untrue
def clipped_backward(z, p, at):
    return _clipped(z) * p(D)[None]


@jax.custom_jvp
def _rounded(x):
    return jnp.round(4 * x) / 4


@_rounded.defjvp
def _rounded_jvp(primals, tangents):
    return _rounded(primals[0]), tangents[0] * jnp.exp(-(primals[0] ** 2))


@_untrue
def straight_through(z, p, at):
    return _rounded(z * p(D)[None]) + z / 2


@jax.custom_vjp
def _reversed(x, strength):
    return x


_reversed.defvjp(
    lambda x, strength: (x, strength), lambda strength, d: (-strength * d, jnp.zeros_like(strength))
)


@_untrue
def gradient_reversal(z, p, at):
    return _reversed(z * p(D)[None], 0.5 + p() ** 2) + z * p(D)[None] * 2


REVERSE_ONLY = {"custom vjp", "clipped backward", "gradient reversal"}
"""Operations with a `custom_vjp`."""
EVERY = OPERATIONS | TRUE | UNTRUE | COARSE
"""All operations."""
