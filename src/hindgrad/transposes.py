"""Products of matrices in the order in which XLA computes them fast."""

import math
from collections import Counter
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from hindgrad.jaxprs import applied, changed_within
from hindgrad.rules import WITH_RULES

SUMS = {"add_any", "add", "sub"}


def products_transposed(jaxpr: Any) -> Any:
    """The jaxpr, in which sums of arrays of one shape are transposed term by term.

    The derivative of a gradient by weights is the transpose of a sum of products. XLA's compilers
    make another product of the transpose of a product; the transpose of a sum they leave, which
    reads memory across its rows.
    """
    uses = _uses(jaxpr)
    sums = {e.outvars[0]: e for e in jaxpr.eqns if e.primitive.name in SUMS}
    sums = {v: e for v, e in sums.items() if uses[v] == 1 and _has_one_shape(e)}

    def transposed(transpose, v):
        """Yields the equations that end with the transpose of v."""
        if isinstance(v, jex.Literal) or v not in sums:
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


def _uses(jaxpr):
    """How often each variable is used."""
    used = [v for e in jaxpr.eqns for v in e.invars] + list(jaxpr.outvars)
    return Counter(v for v in used if not isinstance(v, jex.Literal))


def _has_one_shape(equation):
    return len({v.aval.shape for v in (*equation.invars, *equation.outvars)}) == 1


LEAST = 2**16
"""Products of fewer multiplications stay as they are."""


def contracted_last(jaxpr: Any) -> Any:
    """The jaxpr, in which products that sum over the first axes of both operands, as gradients by
    weights do, get one of them transposed first: XLA's CPU products are faster so, by more than
    the transpose takes. Functions with derivatives of their own stay as they are."""
    if jax.default_backend() != "cpu":
        return jaxpr
    uses = _uses(jaxpr)
    transposes = {e.invars[0]: e for e in jaxpr.eqns if e.primitive.name == "transpose"}
    equations, done = [], set()
    for equation in jaxpr.eqns:
        if _sums_first_axes(equation):
            (result,) = equation.outvars
            transpose = transposes.get(result) if uses[result] == 1 else None
            if transpose is not None and not _swaps(transpose, equation):
                transpose = None
            done.add(id(transpose))
            equations.append(_in_fast_order(equation, transpose))
        elif equation.primitive.name in WITH_RULES:
            equations.append(equation)
        elif id(equation) not in done:
            equations.append(changed_within(equation, contracted_last))
    return jaxpr.replace(eqns=equations)


def _sums_first_axes(equation):
    if equation.primitive.name != "dot_general":
        return False
    (x, y), (of_sum, of_batch) = equation.invars, equation.params["dimension_numbers"]
    first = tuple(range(len(of_sum[0])))
    is_float = jnp.issubdtype(x.aval.dtype, jnp.floating) and x.aval.sharding.mesh.empty
    free = [v.aval.shape[len(first) :] for v in (x, y)]
    is_large = x.aval.size * math.prod(free[1]) >= LEAST
    is_first = first and tuple(map(tuple, of_sum)) == (first, first) and not of_batch[0]
    return bool(is_first and all(free) and is_float and is_large)


def _swaps(transpose, product):
    """Whether a transpose of a product is the product of the operands in the other order."""
    (x, _), (result,) = product.invars, product.outvars
    count = len(product.params["dimension_numbers"][0][0])
    of_x, axes = x.aval.ndim - count, range(result.aval.ndim)
    return tuple(transpose.params["permutation"]) == (*axes[of_x:], *axes[:of_x])


def _in_fast_order(product, transpose):
    """The product, transposed if there is a transpose, with the less to be moved in memory."""
    (x, y), (result,) = product.invars, product.outvars
    swapped = transpose is not None  # what is asked for is `y` times `x`
    moved = [x.aval.size, y.aval.size]
    moved[not swapped] += result.aval.size
    equation = applied(
        _jitted_product,
        x,
        y,
        count=len(product.params["dimension_numbers"][0][0]),
        swapped=swapped,
        y_first=moved[1] < moved[0],
        precision=product.params["precision"],
        preferred_element_type=product.params["preferred_element_type"],
    )
    return equation.replace(outvars=(transpose or product).outvars)


def _product(x, y, *, count, swapped, y_first, precision, **params):
    if y_first:
        x, y = y, x
        precision = precision[::-1] if isinstance(precision, tuple) else precision
    first, last = range(count), range(-count, 0)
    turned = jax.lax.optimization_barrier(jnp.moveaxis(x, first, last))
    axes = [turned.ndim + i for i in last], list(first)
    product = jax.lax.dot_general(turned, y, (axes, ([], [])), precision=precision, **params)
    if y_first == swapped:
        return product
    of_x = x.ndim - count
    # Without the barrier, the compiler would make the slower product of both again.
    return jnp.moveaxis(jax.lax.optimization_barrier(product), range(of_x), range(-of_x, 0))


_jitted_product = jax.jit(
    _product,
    static_argnames=("count", "swapped", "y_first", "precision", "preferred_element_type"),
)
