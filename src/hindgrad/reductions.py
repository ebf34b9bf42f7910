"""Sums over whole arrays as products with ones: on a CPU, XLA adds up one number after another."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hindgrad.jaxprs import applied, changed_within
from hindgrad.rules import WITH_RULES

LEAST = 2**12
"""Arrays smaller than this are summed as they are."""
COLUMNS = 64
"""The length of the rows into which an array is cut: XLA is fast where the rows are more."""


def sums_as_products(jaxpr: Any) -> Any:
    """The jaxpr, in which sums and inner products of whole arrays are products of matrices: on a
    CPU that is several times as fast, and right up to rounding. Functions with derivatives of their
    own stay as they are, and so do arrays on a mesh."""
    if jax.default_backend() != "cpu":
        return jaxpr
    return jaxpr.replace(eqns=[_changed(equation) for equation in jaxpr.eqns])


def _changed(equation):
    name = equation.primitive.name
    if name in WITH_RULES:
        return equation
    if name == "reduce_sum" and _is_whole(equation):
        return applied(_jitted_sum, *equation.invars).replace(outvars=equation.outvars)
    if name == "dot_general" and _is_inner(equation):
        return applied(_jitted_product, *equation.invars).replace(outvars=equation.outvars)
    return changed_within(equation, sums_as_products)


def _is_whole(equation):
    (x,), (result,) = equation.invars, equation.outvars
    return result.aval.ndim == 0 and _is_large_float(x.aval)


def _is_inner(equation):
    """Whether two arrays are multiplied number by number and all is summed."""
    (x, y), (result,) = equation.invars, equation.outvars
    (of_x, of_y), _ = equation.params["dimension_numbers"]
    same = tuple(of_x) == tuple(of_y) and x.aval.dtype == y.aval.dtype == result.aval.dtype
    return result.aval.ndim == 0 and same and all(_is_large_float(v.aval) for v in (x, y))


def _is_large_float(aval):
    is_float = aval.dtype in (jnp.float32, jnp.float64)
    return is_float and aval.size >= LEAST and aval.sharding.mesh.empty


def _sum(x: Float[Array, "..."]) -> Float[Array, ""]:
    if x.size < LEAST:
        return jnp.sum(x)
    x = x.reshape(-1)
    rows = x.size // COLUMNS
    whole, rest = x[: rows * COLUMNS], x[rows * COLUMNS :]
    ones = jnp.ones(COLUMNS, x.dtype)
    highest = jax.lax.Precision.HIGHEST
    of_rows = jax.lax.dot(whole.reshape(rows, COLUMNS), ones, precision=highest)
    return _sum(of_rows) + (jnp.sum(rest) if rest.size else 0)


_jitted_sum = jax.jit(_sum)
_jitted_product = jax.jit(lambda x, y: _sum(x * y))
