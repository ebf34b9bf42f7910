"""Precision: exact arithmetic in float64, the user's functions in the user's own setting."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def wide() -> Any:
    """A context in which float64 exists, whatever the user's setting."""
    return jax.enable_x64(True)


def users_setting() -> bool:
    """Whether float64 is on for the user; to be asked outside of `wide`."""
    return bool(jax.config.read("jax_enable_x64"))


def setting(x64: bool) -> Any:
    """A context with the user's setting again: without it, `jax.random` draws other numbers."""
    return jax.enable_x64(x64)


def isolate(*trees: Any) -> Any:
    """The same values, across which XLA is asked not to move or merge operations, so that one
    computation gives the same bits in two programs. XLA need not obey: verify."""
    return jax.lax.optimization_barrier(trees)


def settled(*trees: Any) -> Any:
    """The same values, computed once: whatever reads them reads the same bits.

    What computes a value may be merged into each of its readers, and rounded otherwise in each.
    A loop is never merged, and what it computes (here: the same, twice) is not known before.
    """
    floats, others = eqx.partition(trees, eqx.is_inexact_array)
    again = lambda _, floats: jax.tree.map(apart, floats)
    return eqx.combine(jax.lax.fori_loop(0, 2, again, floats), others)


def reproducible(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, computed so that two programs are likely to give the same bits.

    A compiler may fuse a product into the sum that it enters, which keeps bits that the product
    alone rounds off, and it does so in one program and not in another. Here every operand of a
    real floating-point sum is first passed through a selection that no compiler can see through,
    and so are roots, powers and single numbers that enter a product. Quotients are products with
    the inverse, which a compiler may make of them, or not, with what else it knows of the divisor.
    Sums over axes are taken in order: a compiler may add several partial sums side by side, and
    how many depends on what is fused into the sum.
    Loops are anchored. Inside functions with derivatives of their own, nothing is changed.
    """
    closed, struct = jax.make_jaxpr(function, return_shape=True)(*args)
    separated = closed.replace(jaxpr=_separated(closed.jaxpr, set(closed.jaxpr.invars)))
    results = jex.jaxpr_as_fun(separated)(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(struct), results)


MERGED = {"add", "sub", "add_any", "reduce_sum", "cumsum"}
"""The primitives whose operands are kept apart from what computes them."""
POWERS = {"sqrt", "rsqrt", "cbrt", "exp", "exp2", "pow", "integer_pow"}
"""The primitives whose results are kept apart from the products that they enter."""
LOOPS = {"scan": ("jaxpr",), "while": ("body_jaxpr",)}
"""The primitives that are loops, and which of their parameters are bodies."""
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
                if _is_computed_float(v, given) and (name != "mul" or v in powers or _is_single(v)):
                    keeping = _keeping_apart(v)
                    equations.append(keeping)
                    (v,) = keeping.outvars
                operands.append(v)
            equation = equation.replace(invars=operands)
        else:
            parameters = {key: _separated_within(x) for key, x in equation.params.items()}
            for body in LOOPS.get(name, ()):
                parameters[body] = _anchored_loop(parameters[body])
            equation = equation.replace(params=parameters)
        equations.append(_replaced(equation))
    return jaxpr.replace(eqns=equations)


def _anchored_loop(body: Any) -> Any:
    """The body of a loop, with the smallest of the floats that it computes anchored."""
    jaxpr = body.jaxpr
    computed = {v for equation in jaxpr.eqns for v in equation.outvars}
    floats = [v for v in jaxpr.outvars if _is_computed_float(v, set()) and v in computed]
    floats = [v for v in floats if v.aval.size]
    if not floats:
        return body
    chosen = min(floats, key=lambda v: v.aval.size)
    anchoring = _applied(_jitted_anchored, chosen).replace(outvars=[jex.gensym()(chosen.aval)])
    outvars = [anchoring.outvars[0] if v is chosen else v for v in jaxpr.outvars]
    return body.replace(jaxpr=jaxpr.replace(eqns=[*jaxpr.eqns, anchoring], outvars=outvars))


def _separated_within(parameter: Any) -> Any:
    """An equation's parameter: the bodies of loops and branches are changed too."""
    if isinstance(parameter, jex.ClosedJaxpr):
        return parameter.replace(jaxpr=_separated(parameter.jaxpr, set()))
    if isinstance(parameter, jex.Jaxpr):
        return _separated(parameter, set())
    if type(parameter) is tuple:
        return tuple(map(_separated_within, parameter))
    return parameter


def _is_single(v):
    """Whether a value is one number: a compiler moves such factors about in a product."""
    return v.aval.size == 1


def _is_computed_float(v, given):
    if isinstance(v, jex.Literal) or v in given:
        return False
    return jnp.issubdtype(v.aval.dtype, jnp.floating)


def _keeping_apart(v):
    """The equation `new variable = v`, kept apart."""
    return _applied(_jitted_apart, v).replace(outvars=[jex.gensym()(v.aval)])


def _replaced(equation):
    """The equation, or the function that does the same with the same rounding everywhere."""
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
    return _applied(jitted, *equation.invars).replace(outvars=[v])


def _applied(jitted, *variables):
    """The one equation that applies a jitted function to variables."""
    structs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in variables]
    (equation,) = jax.make_jaxpr(jitted)(*structs).eqns
    return equation.replace(invars=list(variables))


@jax.custom_jvp
def apart(x: Any) -> Any:
    """`x`, in a way that keeps what computes it from being fused with what it enters."""
    return jnp.where(x < jnp.inf, x, x + x)  # x + x is x where x is infinite or NaN


@apart.defjvp
def _apart_jvp(primals, tangents):
    return apart(*primals), tangents[0]


@jax.custom_jvp
def anchored(x: Any) -> Any:
    """`x`, in a way that keeps the loop in which it is computed a loop of several kernels.

    Of a loop that touches little memory XLA's CPU compiler makes a single kernel (from JAX 0.12
    on), in which products of matrices are rounded otherwise; unless there is an instruction in it
    that it has no code for there, such as a sort. What one direction of a run has (a derivative's
    scatter, say) the other need not have.
    """
    return jax.lax.platform_dependent(x, cpu=_first_sorted, default=lambda x: x)


def _first_sorted(x):
    flat = x.reshape(-1)
    first = jax.lax.sort(jnp.stack([flat[0], flat[0]]))[:1]
    return jax.lax.dynamic_update_slice(flat, first, (0,)).reshape(x.shape)


@anchored.defjvp
def _anchored_jvp(primals, tangents):
    return anchored(*primals), tangents[0]


@jax.custom_jvp
def _quotient(x: Any, y: Any) -> Any:
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
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
def _sum_in_order(x: Any, axes: tuple[int, ...]) -> Any:
    # What a reduction computes at each element may be reassociated, unless it is a selection.
    return jax.lax.reduce(x, x.dtype.type(0), lambda total, x: apart.fun(total + x), axes)


@_sum_in_order.defjvp
def _sum_in_order_jvp(axes, primals, tangents):
    return _sum_in_order(*primals, axes), jnp.sum(tangents[0], axes)


_jitted_apart = jax.jit(apart)
_jitted_anchored = jax.jit(anchored)
_jitted_quotient = jax.jit(_quotient)
_jitted_sum = jax.jit(_sum_in_order, static_argnames="axes")
