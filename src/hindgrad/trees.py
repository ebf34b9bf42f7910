"""Small tools for pytrees of parameters, hyperparameters and cotangents."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from hindgrad import placement


def as_hyper(hyper: PyTree) -> PyTree:
    """Hyperparameters as training takes them: Python floats become arrays, so that changing one
    does not recompile; weak types become strong. Everything else passes unchanged."""

    def convert(leaf):
        if isinstance(leaf, (float, np.ndarray, np.generic)) or eqx.is_inexact_array(leaf):
            array = jnp.asarray(leaf)
            return jax.lax.convert_element_type(array, array.dtype)
        return leaf

    return jax.tree.map(convert, hyper)


class Split(eqx.Module):
    """Parameters in two parts, so that what is not trained is still known within `jax.jit`, which
    makes JAX arrays of NumPy's."""

    trained: PyTree
    rest: PyTree


def split_trained(params: PyTree) -> tuple[PyTree, PyTree]:
    """What of parameters is trained, as arrays, and the rest, as `equinox.partition` gives them.

    Trained are the inexact JAX arrays, and in plain containers (dictionaries, lists, tuples) also
    NumPy arrays and Python floats, as `jax.grad` takes them. Within a module they are settings:
    a slope, a dropout rate, a table.
    """
    if isinstance(params, Split):
        return params.trained, params.rest

    def trained(x):
        if isinstance(x, (dict, list, tuple, Mapping)):
            return jax.tree.map(trained, x, is_leaf=lambda y: y is not x)
        return jax.tree.map(_is_inexact_jax, x) if _is_node(x) else _is_float(x)

    trained, rest = eqx.partition(params, trained(params))
    return as_hyper(trained), rest


def _is_inexact_jax(x):
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)


def _is_node(x):
    return x is not None and not jax.tree_util.all_leaves([x])


def _is_float(x):
    if isinstance(x, (float, complex)):
        return True
    is_array = isinstance(x, (jax.Array, np.ndarray, np.generic))
    return is_array and jnp.issubdtype(x.dtype, jnp.inexact)


def unperturbed(tree: PyTree) -> PyTree:
    """The same, with integers, booleans and keys that derivatives do not see: what comes out of a
    function with a derivative of its own counts as changed by it, floats or not."""

    def cut(x):
        if not eqx.is_array(x) or jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = cut(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jax.lax.bitwise_or(x, jnp.zeros_like(x))  # whose derivative is zero, symbolically

    return jax.tree.map(cut, tree)


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


def common(*values: Any) -> np.dtype:
    """The type to which JAX promotes these arrays or types, also where it is told to refuse."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*values)


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
        # A constant result comes back from the jaxpr as a literal, which is not a JAX array, or
        # (on an explicit mesh) with a weak type; without jit, loops carry NumPy arrays.
        as_jax = lambda tree: jax.tree.map(_strong, tree)
        return as_jax(self.function(*jax.tree.map(placement.on_mesh, as_jax(args))))


def _strong(x):
    if not hasattr(x, "dtype"):
        return x
    x = x if eqx.is_array(x) else jnp.asarray(x)
    return jax.lax.convert_element_type(x, x.dtype) if getattr(x, "weak_type", False) else x


def close(function: Callable, *args: Any) -> Closed:
    """The same function, for arguments like `args` (arrays or their structs)."""
    closed = eqx.filter_closure_convert(function, *jax.tree.map(placement.on_mesh, args))
    old = getattr(closed, "jaxpr", None)
    if old is not None:  # in JAX 0.12 it holds the constants too, where they are static
        parts = old.constvars, old.invars, old.outvars, old.eqns, old.effects, old.debug_info
        closed = eqx.tree_at(lambda c: c.jaxpr, closed, jax.extend.core.Jaxpr(*parts))
    return Closed(closed)


def dependence(function: Callable, *args: Any) -> tuple[PyTree, PyTree]:
    """The structs of the arrays in `function(*args)`, and for each of them whether it depends on
    an array in `args`."""
    closed, struct, _ = eqx.filter_make_jaxpr(function)(*args)
    depends = depending(closed.jaxpr, closed.jaxpr.invars)
    return struct, jax.tree.unflatten(jax.tree.structure(struct), depends)


def depending(jaxpr: Any, variables: Sequence[Any]) -> list[bool]:
    """For each result of a jaxpr, whether it depends on one of these variables."""
    reached = set(variables)
    is_reached = lambda v: not isinstance(v, jax.extend.core.Literal) and v in reached
    for equation in jaxpr.eqns:
        if any(map(is_reached, equation.invars)):
            reached.update(equation.outvars)
    return list(map(is_reached, jaxpr.outvars))
