"""Programs as JAX writes them (jaxprs), in every version's form."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from hindgrad import placement

JITTED = {"jit", "pjit"}
"""The names of the primitive that calls a jitted function, in JAX's versions."""


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, those within loops, branches and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        yield from within(equation)


def within(equation: Any) -> Iterator[Any]:
    """All equations of the programs in an equation's parameters."""
    for inner in _programs(tuple(equation.params.values())):
        yield from equations(getattr(inner, "jaxpr", inner))


def constants(program: Any) -> Iterator[Any]:
    """The arrays in a program, and in the programs within it."""
    for inner in _programs(program):
        yield from map(_as_array, getattr(inner, "consts", ()))
        for equation in inner.eqns:
            yield from (_as_array(v.val) for v in equation.invars if isinstance(v, jex.Literal))
            yield from constants(tuple(equation.params.values()))


def rewritten(function: Callable[..., Any], *changes: Callable[[Any], Any]) -> Callable[..., Any]:
    """The same function, with its jaxpr changed by one after the other."""

    def called(*args):
        args = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, args)
        closed, struct, others = eqx.filter_make_jaxpr(lambda *args: function(*args))(*args)
        jaxpr = closed.jaxpr
        for change in changes:
            jaxpr = change(jaxpr)
        results = jex.jaxpr_as_fun(closed.replace(jaxpr=jaxpr))(
            *jax.tree.leaves(eqx.filter(args, eqx.is_array))
        )
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(struct), results), others)

    return called


def changed_within(equation: Any, change: Callable[[Any], Any]) -> Any:
    """The equation with the jaxprs in its parameters (bodies, branches, calls) changed; what each
    device does for itself is left as it is."""
    if equation.primitive.name == "shard_map":
        return equation

    def changed(parameter):
        if isinstance(parameter, jex.ClosedJaxpr):
            return parameter.replace(jaxpr=change(parameter.jaxpr))
        if isinstance(parameter, jex.Jaxpr):
            return change(parameter)
        return tuple(map(changed, parameter)) if type(parameter) is tuple else parameter

    return equation.replace(params={name: changed(x) for name, x in equation.params.items()})


def inlined(program: Any) -> Any:
    """The closed jaxpr without calls of jitted functions: their equations are in its own."""

    def run(jaxpr, constants, *args):
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *args], strict=True))
        read = lambda v: v.val if isinstance(v, jex.Literal) else values[v]
        for equation in jaxpr.eqns:
            given = list(map(read, equation.invars))
            if equation.primitive.name in JITTED:
                inner = equation.params["jaxpr"]
                results = run(inner.jaxpr, inner.consts, *given)
            else:
                results = _evaluated(jaxpr, equation, given)
            values.update(zip(equation.outvars, results, strict=True))
        return list(map(read, jaxpr.outvars))

    structs = list(map(_struct, program.jaxpr.invars))
    return jax.make_jaxpr(lambda *args: run(program.jaxpr, program.consts, *args))(*structs)


def _evaluated(jaxpr, equation, given):
    """The results of one of the jaxpr's equations."""
    operands = [jex.gensym()(v.aval) for v in equation.invars]
    results = [jex.gensym()(v.aval) for v in equation.outvars]  # what nothing uses has no name
    equation = equation.replace(invars=operands, outvars=results)
    alone = jaxpr.replace(constvars=[], invars=operands, outvars=results, eqns=[equation])
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, []))(*given)


def scan_parts(params: dict[str, Any], values: list[Any]) -> tuple[list[Any], ...]:
    """Of a `scan`'s operands, or of its body's: the constants, the carry and the rows."""
    if "ft_in" in params:  # JAX from 0.11 on
        constants, carry, rows = params["ft_in"].update(values).unpack()
        return list(constants), list(carry), list(rows)
    begin, end = params["num_consts"], params["num_consts"] + params["num_carry"]
    return list(values[:begin]), list(values[begin:end]), list(values[end:])


def applied(jitted: Any, *variables: Any, **static: Any) -> Any:
    """The one equation that applies a jitted function to variables (and static arguments), with a
    variable of its own for its one result."""
    structs = list(map(_struct, variables))
    (equation,) = jax.make_jaxpr(lambda *args: jitted(*args, **static))(*structs).eqns
    (result,) = equation.outvars
    return equation.replace(invars=list(variables), outvars=[jex.gensym()(result.aval)])


def _struct(v):
    """What is known of a variable: on an explicit mesh, where it is too."""
    sharding = placement.of_type(v.aval)
    return jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, sharding=sharding)


def is_computed_float(v: Any, given: set[Any] | frozenset[Any] = frozenset()) -> bool:
    """Whether a variable is a float that is not given from outside."""
    if isinstance(v, jex.Literal) or v in given:
        return False
    return jnp.issubdtype(v.aval.dtype, jnp.floating)


def _programs(parameter):
    if isinstance(parameter, (jex.ClosedJaxpr, jex.Jaxpr)):  # one class from JAX 0.12 on
        yield parameter
    elif isinstance(parameter, (tuple, list)):
        for part in parameter:
            yield from _programs(part)


def _as_array(x):
    return x if isinstance(x, jax.Array) else np.asarray(x)
