"""Loops of an exact run stay loops of several kernels: anchors."""

from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from hindgrad import placement
from hindgrad.jaxprs import applied, is_computed_float, scan_parts

LOOPS = {"scan": "jaxpr", "while": "body_jaxpr"}
"""The primitives that are loops, and which of their parameters is the body."""


def anchored(x: Any) -> Any:
    """`x`, in a way that keeps the loop in which it is computed a loop of several kernels.

    Of a loop that touches little memory XLA's CPU compiler makes a single kernel (from JAX 0.12
    on), in which products of matrices are rounded otherwise; unless there is an instruction in it
    that it has no code for there, such as a sort. What one direction of a run has (a derivative's
    scatter, say) the other need not have.
    """
    return _held(x, _anchor(x))


def _held(x, anchor):
    return jnp.where(anchor, x, jnp.zeros((), x.dtype))


def _anchor(x):
    """True, which on a CPU takes a sort that depends on `x`."""
    some = placement.whole(x).reshape(-1)[0] > 0
    return jax.lax.platform_dependent(some, cpu=_is_in_order, default=jnp.ones_like)


def _is_in_order(some):
    pair = jax.lax.sort(jnp.stack([some, some]).astype(jnp.int32))
    return pair[0] == some.astype(jnp.int32)


def anchored_loop(equation: Any) -> Any:
    """A loop of which every float that it computes needs the anchor: a compiler removes what is not
    needed, and would remove the anchor with it."""
    body, given = _body_and_changing(equation)
    computed = {v for inner in body.eqns for v in inner.outvars}
    floats = {v for v in body.outvars if is_computed_float(v) and v in computed}
    if not floats or given is None:
        return equation
    anchor = applied(_jitted_anchor, given)
    holding = {v: applied(_jitted_held, v, *anchor.outvars) for v in floats}
    held = {v: equation.outvars[0] for v, equation in holding.items()}
    outvars = [v if isinstance(v, jex.Literal) else held.get(v, v) for v in body.outvars]
    body = body.replace(eqns=[*body.eqns, anchor, *holding.values()], outvars=outvars)
    name = LOOPS[equation.primitive.name]
    closed = equation.params[name].replace(jaxpr=body)
    return equation.replace(params=equation.params | {name: closed})


def _body_and_changing(equation):
    """The body of a loop, and the smallest array that it is given anew in every iteration, if any:
    what stays the same could be moved out of the loop, and the anchor with it."""
    params = equation.params
    body = params[LOOPS[equation.primitive.name]].jaxpr
    if equation.primitive.name == "scan":
        _, carry, rows = scan_parts(params, body.invars)
    else:
        carry, rows = body.invars[params["body_nconsts"] :], []
    moving = [v for v, result in zip(carry, body.outvars, strict=False) if v is not result]
    for choices in rows, moving:  # rows first: no computation is kept for them alone
        choices = [v for v in choices if v.aval.size and _is_number(v)]
        if choices:
            return body, min(choices, key=lambda v: v.aval.size)
    return body, None


def _is_number(v):
    return jnp.issubdtype(v.aval.dtype, jnp.number) or v.aval.dtype == jnp.bool_


_jitted_anchor = jax.jit(_anchor)
_jitted_held = jax.jit(_held)
