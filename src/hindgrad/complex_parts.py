"""Complex arithmetic by real and imaginary parts, so that two programs give the same bits."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hindgrad.numerics import apart


def by_parts(equation: Any) -> Callable[..., Any] | None:
    """A function that does what an equation does, if that is complex arithmetic in which a
    compiler may fuse a product into a sum, or not."""
    if not any(jnp.issubdtype(v.aval.dtype, jnp.complexfloating) for v in equation.invars):
        return None
    name = equation.primitive.name
    return _power(equation.params["y"]) if name == "integer_pow" else _PARTS.get(name)


def _rounded_by(parts, plain):
    """`parts`, compiled, with the derivative of `plain`, which is the same function."""
    computed = jax.custom_jvp(parts)
    computed.defjvp(lambda primals, tangents: (parts(*primals), _tangent(plain, primals, tangents)))
    return jax.jit(computed)


def _tangent(function, primals, tangents):
    return jax.jvp(function, primals, tangents)[1]


def _product(x, y):
    a, b, c, d = x.real, x.imag, y.real, y.imag
    return jax.lax.complex(apart(a * c) - apart(b * d), apart(a * d) + apart(b * c))


def _square(x):
    return _product(x, x)


def _quotient(x, y):
    squares = _sum_of_squares(y)
    over = _product(x, y.conj())
    parts = jax.lax.complex(over.real / apart(squares), over.imag / apart(squares))
    return jnp.where(_is_ordinary(squares), parts, x / y)


def _size(x):
    squares = _sum_of_squares(x)
    return jnp.where(_is_ordinary(squares), jnp.sqrt(apart(squares)), jnp.abs(x))


def _sum_of_squares(x):
    return apart(x.real * x.real) + apart(x.imag * x.imag)


def _is_ordinary(squares):
    """Whether the squares neither overflow nor lose digits where they are small."""
    info = jnp.finfo(squares.dtype)
    least = math.sqrt(float(info.tiny))
    return (squares > least) & (squares < 1 / least)


def _power(exponent):
    """x^exponent, for a whole number."""

    def parts(x):
        result, square, left = jnp.ones_like(x), x, abs(exponent)
        while left:
            result = _product(result, square) if left % 2 else result
            square, left = _square(square), left // 2
        return result if exponent >= 0 else _quotient(jnp.ones_like(x), result)

    return _rounded_by(parts, lambda x: jax.lax.integer_pow(x, exponent))


_PARTS = {
    "mul": _rounded_by(_product, jax.lax.mul),
    "square": _rounded_by(_square, jax.lax.square),
    "div": _rounded_by(_quotient, jax.lax.div),
    "abs": _rounded_by(_size, jax.lax.abs),
}
