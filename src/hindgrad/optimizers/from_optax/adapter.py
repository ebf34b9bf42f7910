"""Any optax transformation as an optimizer."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.optimizers.base import Optimizer
from hindgrad.optimizers.from_optax import refusals
from hindgrad.optimizers.from_optax.derivatives import explanation
from hindgrad.optimizers.from_optax.links import links


class FromOptax(Optimizer):
    """See `from_optax`."""

    make: Callable[[PyTree], optax.GradientTransformation]

    def coefficients(self, hyper, t):
        del t
        return hyper

    def init(self, params, coefficients):
        made = self._made(coefficients)
        state = made.init(params)
        if not any(map(_is_number, jax.tree.leaves(state))):
            return state
        # It has the type that the first update gives it.
        start = jax.tree.map(lambda x: jnp.asarray(x) if _is_number(x) else x, state)
        _, after = jax.eval_shape(lambda: made.update(params, start, params))
        return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), start, after)

    def move(self, params, memory, coefficients):
        del memory, coefficients
        return params

    def update(self, grads, memory, params, coefficients):
        made = self._made(coefficients)
        numbers = coefficients, _closed_over(made)
        given = _as_precise((grads, memory, params), params, numbers)
        with refusals.untraceable():
            updates, after = made.update(*given)
        return optax.apply_updates(params, updates), _as_before(after, memory)

    def fault(self, coefficients):
        return explanation(links(self._made(coefficients)))

    def _made(self, coefficients):
        with refusals.untraceable():
            made = self.make(coefficients)
        if not all(callable(getattr(made, name, None)) for name in ("init", "update")):
            raise TypeError(
                f"The function given to from_optax returned {made!r}, which is no optax "
                "transformation. Return one, such as optax.adam(hyper['rate'])."
            )
        refusals.check_arguments(made)
        return made


def from_optax(make: Callable[[PyTree], optax.GradientTransformation]) -> FromOptax:
    """An optimizer from a function of the hyperparameters to an optax transformation.

        hg.from_optax(lambda hyper: optax.adamw(hyper["rate"], weight_decay=hyper["decay"]))

    Works with every adjoint that does not run training backwards. Where the derivative of the
    update is not finite though everything else in the step is (for one optax optimizer in three,
    at gradients that are exactly zero), differentiating raises `RuntimeError`, which names
    the part at fault and what helps.

    Parameters and state keep their dtypes from step to step. If a hyperparameter is of more
    precision, or an array that `make` closes over, the update is computed in that.
    """
    if isinstance(make, optax.GradientTransformation):
        raise TypeError(
            "from_optax was given an optax transformation. Give it a function of the "
            "hyperparameters that returns one: from_optax(lambda hyper: optax.adam(hyper['rate']))."
        )
    return FromOptax(make)


def _is_number(x: Any) -> bool:
    """Whether it is a number or an array, but none of JAX."""
    return isinstance(x, (bool, int, float, complex, np.ndarray, np.generic))


def _closed_over(made: Any) -> list[jax.Array]:
    """The arrays that a transformation closes over."""
    values = [value for link in links(made) for value in link.settings.values()]
    arrays = [x for x in values if isinstance(x, (jax.Array, np.ndarray, np.generic))]
    return [jnp.asarray(x) for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]


def _as_precise(given: PyTree, params: PyTree, numbers: PyTree) -> PyTree:
    """The floats of what an update is given in the precision of the numbers that it computes with,
    if that is more than the parameters'."""
    dtypes = [x.dtype for x in jax.tree.leaves(numbers) if eqx.is_inexact_array(x)]
    dtypes = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    widest = lambda x: reduce(trees.common, dtypes, x.dtype)
    if all(widest(p) == p.dtype for p in jax.tree.leaves(params)):
        return given
    return jax.tree.map(lambda x: x.astype(widest(x)) if eqx.is_inexact_array(x) else x, given)


def _as_before(after: PyTree, before: PyTree) -> PyTree:
    """The state after a step in the dtypes of that before it."""
    if jax.tree.structure(after) != jax.tree.structure(before):
        return after

    def cast(path, new, old):
        if not eqx.is_array(old) or getattr(new, "dtype", None) == old.dtype:
            return new
        if jnp.issubdtype(jnp.result_type(new), jnp.inexact) and not eqx.is_inexact_array(old):
            raise TypeError(
                f"The optax state{jax.tree_util.keystr(path)} is {old.dtype} before a step and "
                f"{jnp.result_type(new)} after it. Let init return a float there, such as 0.0."
            )
        return jnp.asarray(new).astype(old.dtype)

    return jax.tree_util.tree_map_with_path(cast, after, before)
