"""Functions computed so that two programs give the same bits."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from hindgrad import placement, trees
from hindgrad.anchors import LOOPS, anchored_loop
from hindgrad.complex_parts import by_parts
from hindgrad.jaxprs import applied, changed_within, is_computed_float, rewritten
from hindgrad.numerics import apart


def reproducible(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, computed so that two programs are likely to give the same bits.

    A compiler may fuse a product into the sum that it enters, which keeps bits that the product
    alone rounds off, and it does so in one program and not in another. Here every operand of a
    real floating-point sum is first passed through a selection that no compiler can see through,
    and so are roots, powers and single numbers that enter a product. Quotients are products with
    the inverse, which a compiler may make of them, or not, with what else it knows of the divisor.
    Complex products, quotients and sizes are computed by parts.
    Sums over axes are taken in order, or as products with ones: a compiler may add several partial
    sums side by side, and how many depends on what is fused into the sum.
    Loops are anchored. Inside functions with derivatives of their own, nothing is changed.
    """
    separated = lambda jaxpr: _separated(jaxpr, set(jaxpr.invars))
    return rewritten(function, separated)(*args)


MERGED = {"add", "sub", "add_any", "reduce_sum", "cumsum"}
"""The primitives whose operands are kept apart from what computes them."""
POWERS = {"sqrt", "rsqrt", "cbrt", "exp", "exp2", "pow", "integer_pow"}
"""The primitives whose results are kept apart from the products that they enter."""
CUSTOM = {"custom_jvp_call", "custom_vjp_call"}
"""Functions with derivatives of their own: their operands are kept apart, their insides left."""


def _separated(jaxpr: Any, given: set[Any]) -> Any:
    """The jaxpr, with what enters its sums kept apart, except for what is given from outside."""
    given = given.union(jaxpr.constvars)
    equations, powers = [], set()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in POWERS:
            powers.update(equation.outvars)
        if name in MERGED | CUSTOM or name == "mul":
            operands = []
            for v in equation.invars:
                if is_computed_float(v, given) and (name != "mul" or v in powers or _is_single(v)):
                    keeping = applied(_jitted_apart, v)
                    equations.append(keeping)
                    (v,) = keeping.outvars
                operands.append(v)
            equation = equation.replace(invars=operands)
        else:
            equation = changed_within(equation, lambda jaxpr: _separated(jaxpr, set()))
            if name in LOOPS:
                equation = anchored_loop(equation)
        equations.append(_replaced(equation))
    return jaxpr.replace(eqns=equations)


def _is_single(v):
    """Whether a value is one number: a compiler moves such factors about in a product."""
    return v.aval.size == 1


def _replaced(equation):
    """The equation, or the function that does the same with the same rounding everywhere."""
    jitted = by_parts(equation)
    if jitted is not None:
        return applied(jitted, *equation.invars).replace(outvars=equation.outvars)
    if equation.primitive.name == "div":
        jitted = _jitted_quotient
    elif equation.primitive.name == "reduce_sum":
        axes = tuple(map(int, equation.params["axes"]))
        jitted = functools.partial(_jitted_sum, axes=axes)
    else:
        return equation
    (v,) = equation.outvars
    if not jnp.issubdtype(v.aval.dtype, jnp.floating):
        return equation
    return applied(jitted, *equation.invars).replace(outvars=[v])


@jax.custom_jvp
def _quotient(x: Any, y: Any) -> Any:
    wide = lambda x: x.astype(trees.common(x.dtype, jnp.float32))
    whole, divisor = wide(x), apart(wide(y))
    size, tiny = jnp.abs(divisor), jnp.finfo(divisor.dtype).tiny
    has_inverse = (size >= tiny) & (size <= 1 / tiny)  # neither overflows nor underflows
    product = whole * apart(1 / divisor)
    return jnp.where(has_inverse, product, whole / divisor).astype(x.dtype)


def _quotient_jvp(primals, tangents):
    result, (dx, dy) = _quotient(*primals), tangents
    moved = jnp.zeros_like(result) if isinstance(dx, SymbolicZero) else dx
    if not isinstance(dy, SymbolicZero):  # an infinite quotient times zero would be NaN
        moved = moved - result * dy
    return result, moved / primals[1]


_quotient.defjvp(_quotient_jvp, symbolic_zeros=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _sum(x: Any, axes: tuple[int, ...]) -> Any:
    if jax.device_count() == 1:
        return _as_product(x, axes) if _is_fast_product(x, axes) else _in_order(x, axes)
    # An axis may be split over devices: each sums its share, and the shares are added up plainly,
    # since devices cannot be asked to add up otherwise.
    shares = []
    for axis in sorted(axes, reverse=True):
        n, ways = x.shape[axis], placement.shares(x, axis)
        x = x.reshape(*x.shape[:axis], ways, n // ways, *x.shape[axis + 1 :])
        x = _in_order(x, (axis + 1,))
        shares.append(axis)
    return jax.lax.reduce_sum(apart.fun(x), tuple(shares))


def _in_order(x, axes):
    # What a reduction computes at each element may be reassociated, unless it is a selection.
    return jax.lax.reduce(x, x.dtype.type(0), lambda total, x: apart.fun(total + x), axes)


LEAST = 2**11
"""Arrays smaller than this are summed in order."""


def _is_fast_product(x, axes):
    """Whether a sum is a product that XLA computes several numbers at once, always by the same
    loop: on a CPU, over the first or the last axes."""
    is_float = x.dtype in (jnp.float32, jnp.float64)
    if jax.default_backend() != "cpu" or not is_float or x.size < LEAST:
        return False
    long = [axis for axis, n in enumerate(x.shape) if n > 1]
    summed = [axis for axis in long if axis in axes]
    ends = long[: len(summed)], long[len(long) - len(summed) :]
    return 0 < len(summed) < len(long) and summed in ends


def _as_product(x, axes):
    """The sum as a product with two columns of ones: with one, XLA fuses what computes `x` into the
    product in one program and not in another, and sums it in another order."""
    shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
    kept = math.prod(shape)
    is_first = next(axis for axis, n in enumerate(x.shape) if n > 1) in axes
    ones = jnp.ones((2, x.size // kept), x.dtype)
    pair = (ones, x.reshape(-1, kept)) if is_first else (x.reshape(kept, -1), ones.T)
    products = jax.lax.dot(*pair, precision=jax.lax.Precision.HIGHEST)
    return (products[0] if is_first else products[:, 0]).reshape(shape)


@_sum.defjvp
def _sum_jvp(axes, primals, tangents):
    return _sum(*primals, axes), jnp.sum(tangents[0], axes)


_jitted_apart = jax.jit(apart)
_jitted_quotient = jax.jit(_quotient)
_jitted_sum = jax.jit(_sum, static_argnames="axes")
