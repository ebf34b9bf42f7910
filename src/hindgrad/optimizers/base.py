"""What an optimizer is here, and how its coefficients are given."""

import abc
import inspect
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from hindgrad import trees

Coefficient = Any
"""A rate or decay: a number, a pytree of numbers that is a prefix of the parameters' (one per
layer or leaf; an array broadcasts against its leaf, so one per element as well), or a function
`(hyper, t)` that returns one of these."""

ANY, DECAY = (0.0, float("inf")), (0.0, 1.0)
"""The ranges of rates and strengths, and of decays; the upper bound is not included."""


class Optimizer(eqx.Module):
    """How a gradient changes the parameters, as an explicit function of hyperparameters."""

    @abc.abstractmethod
    def coefficients(self, hyper: PyTree, t: Int[Array, ""]) -> PyTree:
        """All that the step at `t` takes from the hyperparameters."""

    @abc.abstractmethod
    def init(self, params: PyTree, coefficients: PyTree) -> PyTree:
        """The memory before the first step."""

    @abc.abstractmethod
    def move(self, params: PyTree, memory: PyTree, coefficients: PyTree) -> PyTree:
        """The parameters at which the gradient is taken, and which `update` then gets."""

    @abc.abstractmethod
    def update(
        self, grads: PyTree, memory: PyTree, params: PyTree, coefficients: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The parameters and the memory after the step."""

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least value, and the one to stay below, of coefficients that have such, by their
        names in `coefficients`."""
        return {}

    @property
    def gradient_is_constant(self) -> bool:
        """Whether `update` takes the gradient for a constant: its derivative is then never asked
        for."""
        return False

    def fault(self, coefficients: PyTree) -> str | None:
        """What is said if the derivative of `update` is not finite in a step of which everything
        else is; None for an optimizer to which that cannot happen."""
        del coefficients
        return None


def evaluate(coefficient: Coefficient, hyper: PyTree, t: Int[Array, ""]) -> PyTree:
    """The value of a coefficient at step `t`: a number, or a pytree of numbers and arrays."""
    value = coefficient(hyper, t) if is_function(coefficient) else coefficient
    return jax.tree.map(_as_number, value)


def is_function(coefficient: Coefficient) -> bool:
    """Whether a coefficient is a function `(hyper, t)`. A pytree of numbers may be callable too:
    one that was mapped from a model."""
    if not callable(coefficient):
        return False
    if jax.tree_util.all_leaves([coefficient]):
        return True
    try:
        inspect.signature(coefficient).bind(None, None)
    except TypeError:
        return False
    return True


def _as_number(x):
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.result_type(float))


def zeros_for(params: PyTree) -> PyTree:
    """Memory like the parameters: zeros, in float32 at least."""
    zeros = lambda p: jnp.zeros_like(p, np.promote_types(p.dtype, np.float32))
    return jax.tree.map(zeros, params)


def numbers(given: dict[str, Coefficient]) -> dict[str, PyTree]:
    """Those coefficients that are plain numbers, in the widest float type in force."""
    is_number = lambda x: isinstance(x, (int, float))
    return {
        name: jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), value)
        for name, value in given.items()
        if not is_function(value) and all(map(is_number, jax.tree.leaves(value)))
    }


def spread(name: str, value: PyTree, params: PyTree) -> PyTree:
    """A coefficient's value at every leaf of the parameters, in that leaf's precision, but in
    float32 at least: in half precision, a decay of .999 is 1.

    Raises `ValueError` if the value is neither a number nor a prefix of `params`, or if an array
    does not broadcast against its parameters.
    """
    values = _checked(name, value, params)
    return jax.tree.map(lambda x, p: x.astype(trees.widest(p.dtype)), values, params)


def as_prefix(name: str, value: PyTree, params: PyTree) -> PyTree:
    """A coefficient's value as it is given, once for all the parameters that it is for, in the
    widest precision of theirs, float32 at least. Raises as `spread` does."""
    _checked(name, value, params)

    def widened(value, part):
        return value.astype(trees.widest(*(p.dtype for p in jax.tree.leaves(part))))

    return jax.tree.map(widened, value, params)


def times(prefix: PyTree, tree: PyTree) -> PyTree:
    """Every leaf times the number given for it, or for the part of the tree that it is in."""
    product = lambda number, part: jax.tree.map(lambda x: number * x, part)
    return jax.tree.map(product, prefix, tree)


def _checked(name, value, params):
    """The value at every leaf, if it fits."""
    try:
        values = jax.tree.broadcast(value, params)
    except ValueError as error:
        raise ValueError(
            f"{name} has the structure {jax.tree.structure(value)}, which is not a prefix of the "
            f"parameters' {jax.tree.structure(params)}. Give a number, or a pytree with one "
            "number (or array) for each part of the parameters."
        ) from error

    def check(path, param, coefficient):
        if not _broadcasts(coefficient.shape, param.shape):
            raise ValueError(
                f"{name} has shape {coefficient.shape} for the parameters at "
                f"{jax.tree_util.keystr(path) or 'the root'}, of shape {param.shape}. Give a "
                "scalar, or an array that broadcasts to that shape."
            )

    jax.tree_util.tree_map_with_path(check, params, values)
    return values


def _broadcasts(shape, target):
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def check_number(name: str, value: Coefficient, low: float, high: float) -> None:
    """Raises `ValueError` if a constant coefficient lies outside of [low, high)."""
    if is_function(value):
        return
    for leaf in jax.tree.leaves(value):
        if isinstance(leaf, (bool, str)):
            raise ValueError(f"{name}={leaf!r}: a number or a function (hyper, t) is needed.")
        if isinstance(leaf, (int, float)) and not low <= leaf < high:
            raise ValueError(f"{name}={leaf!r} is outside of its range [{low:g}, {high:g}).")
