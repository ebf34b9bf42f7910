"""Sums of products are transposed product by product, which costs nothing."""

from collections import Counter
from typing import Any

import jax.extend.core as jex

from hindgrad.jaxprs import changed_within

SUMS = {"add_any", "add", "sub"}


def products_transposed(jaxpr: Any) -> Any:
    """The jaxpr, in which sums of arrays of one shape are transposed term by term.

    The derivative of a gradient by weights is the transpose of a sum of products. XLA's compilers
    make another product of the transpose of a product; the transpose of a sum they leave, which
    reads memory across its rows.
    """
    is_variable = lambda v: not isinstance(v, jex.Literal)
    uses = Counter(v for e in jaxpr.eqns for v in e.invars if is_variable(v))
    uses.update(v for v in jaxpr.outvars if is_variable(v))
    sums = {e.outvars[0]: e for e in jaxpr.eqns if e.primitive.name in SUMS}
    sums = {v: e for v, e in sums.items() if uses[v] == 1 and _has_one_shape(e)}

    def transposed(transpose, v):
        """Yields the equations that end with the transpose of v."""
        if not is_variable(v) or v not in sums:
            yield transpose.replace(invars=[v])
            return
        (old,), operands = transpose.outvars, []
        for operand in sums[v].invars:
            new = jex.gensym()(old.aval)
            operands.append(new)
            yield from transposed(transpose.replace(outvars=[new]), operand)
        yield sums[v].replace(invars=operands, outvars=[old])

    equations = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "transpose":
            equations += transposed(equation, *equation.invars)
        else:
            equations.append(changed_within(equation, products_transposed))
    return jaxpr.replace(eqns=equations)  # sums that are not needed now are not computed


def _has_one_shape(equation):
    return len({v.aval.shape for v in (*equation.invars, *equation.outvars)}) == 1
