"""Small tools for pytrees of parameters, hyperparameters and cotangents."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree


def as_hyper(hyper: PyTree) -> PyTree:
    """Hyperparameters as training takes them: Python floats become arrays, so that changing one
    does not recompile; weak types become strong. Everything else passes unchanged."""

    def convert(leaf):
        if isinstance(leaf, (float, np.ndarray, np.generic)) or eqx.is_inexact_array(leaf):
            array = jnp.asarray(leaf)
            return jax.lax.convert_element_type(array, array.dtype)
        return leaf

    return jax.tree.map(convert, hyper)


def zeros_where_none(like: PyTree, cotangent: PyTree) -> PyTree:
    """`cotangent`, with zeros where it is None at an inexact array of `like`, None elsewhere."""

    def fill(primal, value):
        if not eqx.is_inexact_array(primal):
            return None
        return jnp.zeros_like(primal) if value is None else value

    return jax.tree.map(fill, like, cotangent, is_leaf=lambda x: x is None)


def add(*trees: PyTree) -> PyTree:
    """The sum, leaf by leaf, of trees of one structure (None where there is no cotangent)."""
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *trees)


def size(tree: PyTree) -> int:
    """The number of elements in the arrays of a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if hasattr(leaf, "size"))


def nbytes(tree: PyTree) -> int:
    """The bytes of the arrays of a tree (of their shapes and dtypes, if it holds structs)."""
    return sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")
    )


def widest(*dtypes: Any) -> np.dtype:
    """The float type that holds all of these, float32 at least; whatever JAX may promote itself."""
    real = (np.finfo(d).dtype if np.dtype(d).kind == "c" else d for d in dtypes)
    return functools.reduce(np.promote_types, real, np.dtype(np.float32))


def norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all floats of a tree, in the widest of their types."""
    floats = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    dtype = widest(*(x.dtype for x in floats))
    squares = [jnp.sum(jnp.square(jnp.abs(x).astype(dtype))) for x in floats]
    return jnp.sqrt(sum(squares, jnp.zeros((), dtype)))


def finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether all floats of a tree, of which there is at least one, are finite."""
    floats = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in floats]))


class Closed(eqx.Module):
    """A function with all that it closes over made part of a pytree; see `close`."""

    function: Callable

    def __call__(self, *args):
        # A constant result comes back from the jaxpr as a literal, which is not a JAX array.
        is_literal = lambda x: hasattr(x, "dtype") and not eqx.is_array(x)
        return jax.tree.map(lambda x: jnp.asarray(x) if is_literal(x) else x, self.function(*args))


def close(function: Callable, *args: Any) -> Closed:
    """The same function, for arguments like `args` (arrays or their structs)."""
    return Closed(eqx.filter_closure_convert(function, *args))


def dependence(function: Callable, *args: Any) -> tuple[PyTree, PyTree]:
    """The structs of the arrays in `function(*args)`, and for each of them whether it depends on
    an array in `args`."""
    closed, struct, _ = eqx.filter_make_jaxpr(function)(*args)
    reached = set(closed.jaxpr.invars)
    for equation in closed.jaxpr.eqns:
        if any(_is_in(v, reached) for v in equation.invars):
            reached.update(equation.outvars)
    depends = [_is_in(v, reached) for v in closed.jaxpr.outvars]
    return struct, jax.tree.unflatten(jax.tree.structure(struct), depends)


def _is_in(variable, variables):
    return not isinstance(variable, jax.extend.core.Literal) and variable in variables
