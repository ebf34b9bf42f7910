"""A program evaluated in float64: the very same one, equation by equation.

Tracing a function once more with float64 on gives another program: `jax.random` draws other
numbers, and casts to float32 stay. Here its jaxpr is traced in the user's own setting, and
interpreted with every float widened, constants too. Draws stay as they are: a call that is given
a key, and no float but literals, is run in the user's floats, and its results are then widened.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from hindgrad import numerics, programs
from hindgrad.jaxprs import scan_parts

INNER = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
"""Calls, and the parameter in which each of them keeps what it calls."""
DTYPES = {
    "convert_element_type": "new_dtype",
    "dot_general": "preferred_element_type",
    "ragged_dot_general": "preferred_element_type",
    "conv_general_dilated": "preferred_element_type",
    "argmax": "index_dtype",
    "argmin": "index_dtype",
    "iota": "dtype",
}
"""Primitives with a parameter that is a dtype: that of the result, to be widened too."""
DRAWS = {"random_gamma", "rng_uniform"}
"""Draws that may take floats: made as the user makes them."""


def in_float64(function: Callable[..., Any], *args: Any) -> PyTree:
    """`function(*args)`, a pytree of arrays: the same program with its floats in float64.

    Derivatives taken within `function` are part of its program. A primitive that has no such
    meaning (a callback, a kernel, the bits of a float) raises `NotImplementedError` if a float in
    float64 enters it.
    """
    arrays = lambda x: jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x
    function, args = jax.tree.map(arrays, (function, args))  # in the user's setting
    x64 = numerics.users_setting()
    with numerics.wide():
        return _evaluated(function, args, x64)


@programs.compiled
def _evaluated(function, args, x64):
    dynamic, static = eqx.partition(args, eqx.is_array)
    with numerics.setting(x64):
        closed, struct = jax.make_jaxpr(
            lambda dynamic: function(*eqx.combine(dynamic, static)), return_shape=True
        )(dynamic)
    results = _evaluate(closed, [_widened(x) for x in jax.tree.leaves(dynamic)])
    return jax.tree.unflatten(jax.tree.structure(struct), results)


def _evaluate(program: Any, args: list[Any]) -> list[Any]:
    """The results of a jaxpr, closed or not, given wide arguments."""
    jaxpr = getattr(program, "jaxpr", program)
    values = dict(zip(jaxpr.invars, args, strict=True))
    consts = [_widened(c) for c in getattr(program, "consts", ())]
    values |= dict(zip(jaxpr.constvars, consts, strict=True))
    read = lambda v: _widened(_literal(v)) if isinstance(v, jex.Literal) else values[v]
    for equation in jaxpr.eqns:
        if equation.outvars:  # others only print
            results = _results(equation, [read(v) for v in equation.invars])
            values |= dict(zip(equation.outvars, map(_widened, results), strict=True))
    return [read(v) for v in jaxpr.outvars]


def _results(equation, args):
    name, params = equation.primitive.name, equation.params
    if name in DRAWS or (name in INNER and _is_draw(equation)):
        narrow = [_as(x, v.aval.dtype) for x, v in zip(args, equation.invars, strict=True)]
        return _bind(equation, narrow, params)
    if name in INNER:
        return _evaluate(params[INNER[name]], args)
    if name == "call_hi_primitive":
        return _expanded(params["_prim"], args)
    if name in SPECIAL:
        return SPECIAL[name](params, args)
    if not any(map(_is_float, args)) and name not in DTYPES:
        return _bind(equation, args, params)
    results = _bind(equation, args, _widened_params(equation))
    for variable, result in zip(equation.outvars, results, strict=True):
        if result.dtype != _wide_dtype(variable.aval.dtype):
            raise _refused(equation)
    return results


def _is_draw(equation):
    """Whether a call is given a key, and no float that is computed."""
    is_key = lambda v: jnp.issubdtype(v.aval.dtype, jax.dtypes.prng_key)
    floats = [v for v in equation.invars if _is_float(v.aval)]
    given = any(map(is_key, equation.invars))
    return given and all(isinstance(v, jex.Literal) for v in floats)


def _bind(equation, args, params):
    primitive = equation.primitive
    with equation.ctx.manager:
        results = primitive.bind(*args, **primitive.get_bind_params(params))
    return results if primitive.multiple_results else [results]


def _widened_params(equation):
    """The parameters for wide operands; refused if one of them may say something about dtypes
    that is not known here."""
    name, params = equation.primitive.name, dict(equation.params)
    if name == "bitcast_convert_type" or equation.effects:
        raise _refused(equation)
    known = {"precision"}
    if name in DTYPES:
        known.add(DTYPES[name])
        if params[DTYPES[name]] is not None:
            params[DTYPES[name]] = _wide_dtype(params[DTYPES[name]])
        if "precision" in params:
            params["precision"] = None  # float64 has but one
    if params.get("update_jaxpr") is not None:  # of a scatter: its sum of scalars
        known.add("update_jaxpr")
        params["update_jaxpr"] = _widened_scalars(params["update_jaxpr"])
    if any(_is_opaque(value) for key, value in params.items() if key not in known):
        raise _refused(equation)
    return params


def _widened_scalars(jaxpr):
    """The scalar program of a sum, for float64."""
    structs = [jax.ShapeDtypeStruct((), _wide_dtype(v.aval.dtype)) for v in jaxpr.invars]
    return jax.make_jaxpr(lambda *args: _evaluate(jaxpr, list(args)))(*structs).jaxpr


def _expanded(primitive, args):
    """A primitive that JAX writes in terms of others, as a program for arguments as it has them."""
    structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in primitive.in_avals_flat]
    expand = lambda *args: primitive.expand(*jax.tree.unflatten(primitive.in_tree, args))
    return _evaluate(jax.make_jaxpr(expand)(*structs), args)


def _is_opaque(value):
    if isinstance(value, (tuple, list)):
        return any(map(_is_opaque, value))
    if isinstance(value, (np.dtype, jex.Jaxpr, jex.ClosedJaxpr)) or callable(value):
        return True
    return hasattr(value, "dtype") and not isinstance(value, np.integer)


def _refused(equation):
    return NotImplementedError(
        f"The program holds the primitive {equation.primitive.name!r}, which cannot be evaluated "
        "in float64 for it. Leave it out, or compare with a run of your own under "
        "jax.enable_x64(True)."
    )


def _scan(params, args):
    consts, carry, xs = scan_parts(params, args)

    def body(carry, xs):
        results = _evaluate(params["jaxpr"], [*consts, *carry, *xs])
        return _like(carry, results[: len(carry)]), results[len(carry) :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    final, outputs = jax.lax.scan(body, carry, xs, **options)
    return [*final, *outputs]


def _while(params, args):
    first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    test, consts, carry = args[:first], args[first:second], args[second:]
    return jax.lax.while_loop(
        lambda carry: _evaluate(params["cond_jaxpr"], [*test, *carry])[0],
        lambda carry: _like(carry, _evaluate(params["body_jaxpr"], [*consts, *carry])),
        carry,
    )


def _cond(params, args):
    index, *operands = args
    branch = lambda program: lambda *args: _evaluate(program, list(args))
    return jax.lax.switch(_as(index, jnp.int32), [branch(p) for p in params["branches"]], *operands)


def _linear_solve(params, args):
    """A solve with a derivative of its own, of which there is no need any more."""
    lengths = params["const_lengths"]
    begin = lengths.matvec + lengths.vecmat
    consts = args[begin : begin + lengths.solve]
    right = args[begin + lengths.solve + lengths.transpose_solve :]
    return _evaluate(params["jaxprs"].solve, [*consts, *right])


def _reduce_precision(params, args):
    """A cast to fewer bits, left out like every other one."""
    del params
    return args


SPECIAL = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "custom_linear_solve": _linear_solve,
    "reduce_precision": _reduce_precision,
}
"""What is evaluated in another way than by binding the primitive again."""


def _literal(literal):
    dtype = literal.aval.dtype
    return np.asarray(literal.val, dtype) if isinstance(dtype, np.dtype) else literal.val


def _wide_dtype(dtype):
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype(np.complex128)
    return np.dtype(np.float64) if jnp.issubdtype(dtype, jnp.floating) else dtype


def _is_float(x):
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _widened(x):
    return _as(x, _wide_dtype(x.dtype))


def _as(x, dtype):
    return x if x.dtype == dtype else jax.lax.convert_element_type(x, dtype)


def _like(carry, results):
    """The results as the carry that they follow, which has no weak types."""
    return [
        jax.lax.convert_element_type(r, c.dtype) if isinstance(c.dtype, np.dtype) else r
        for c, r in zip(carry, results, strict=True)
    ]
