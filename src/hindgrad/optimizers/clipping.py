"""Clipping: a bound on the gradient that an optimizer sees."""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.optimizers.base import ANY, Coefficient, check_number, is_function, spread


class Clip(eqx.Module):
    """Bounds the gradient of the loss, before coupled weight decay is added to it."""

    limit: eqx.AbstractVar[Coefficient]

    @abc.abstractmethod
    def __call__(self, grads: PyTree, limit: PyTree) -> PyTree:
        """The gradient within `limit`, in float32 at least."""


class ClipByValue(Clip):
    """Every element within ±limit. Where it is cut off, its derivative is that of the limit.

    **Arguments:**

    - `limit`: in units of gradient, above 0: a number, a pytree of numbers that is a prefix of the
      parameters', or a function `(hyper, t)` that returns one of these. Its name among the
      optimizer's coefficients is `clip`.
    """

    limit: Coefficient

    def __check_init__(self):
        _check_limit("ClipByValue", self.limit)

    def __call__(self, grads, limit):
        _check_real(grads)
        limits = jax.tree.map(_above_zero, spread("clip", limit, grads))
        clip = lambda g, most: jnp.clip(g.astype(most.dtype), -most, most)
        return jax.tree.map(clip, grads, limits)


class ClipByGlobalNorm(Clip):
    """All elements times limit / ‖g‖ where the Euclidean norm ‖g‖ of the whole gradient exceeds the
    limit (Pascanu, Mikolov & Bengio 2013, Alg. 1). A norm beyond the range of the gradient's dtype
    is clipped too, not rounded to infinity.

    **Arguments:**

    - `limit`: in units of gradient, above 0: a number, or a function `(hyper, t)` that returns one.
      Its name among the optimizer's coefficients is `clip`.
    """

    limit: Coefficient

    def __check_init__(self):
        _check_limit("ClipByGlobalNorm", self.limit)

    def __call__(self, grads, limit):
        leaves = jax.tree.leaves(limit)
        if len(leaves) != 1 or jnp.shape(leaves[0]) != ():
            raise ValueError(
                f"ClipByGlobalNorm(limit) is {limit!r}: one number for the norm of the whole "
                "gradient is needed. For one for each part of the parameters, take ClipByValue."
            )
        (limit,) = leaves
        _check_real(grads)
        dtype = trees.widest(*(g.dtype for g in jax.tree.leaves(grads)))
        grads = jax.tree.map(lambda g: g.astype(trees.widest(g.dtype)), grads)
        limit = _above_zero(limit.astype(dtype))
        # In units of the largest element, so that no square overflows.
        largest = [jnp.max(jnp.abs(g), initial=0) for g in jax.tree.leaves(grads)]
        unit = jax.lax.stop_gradient(functools.reduce(jnp.maximum, largest).astype(dtype))
        is_zero = unit == 0
        unit = jnp.where(is_zero, 1, unit)
        scaled = jax.tree.map(lambda g: g / unit.astype(g.dtype), grads)
        squares = [jnp.sum(jnp.square(g.astype(dtype))) for g in jax.tree.leaves(scaled)]
        norm = jnp.sqrt(jnp.where(is_zero, 1, sum(squares)))
        is_longer = ~is_zero & ~(norm <= limit / unit)
        factor = limit / norm
        shorter = lambda g, s: jnp.where(is_longer, s * factor.astype(s.dtype), g)
        return jax.tree.map(shorter, grads, scaled)


def _check_limit(name, limit):
    if limit is None:
        raise ValueError(f"{name}(limit=None): a number above 0 is needed; no clip is clip=None.")
    check_number(f"{name}(limit)", limit, *ANY)
    if not is_function(limit) and any(x == 0 for x in jax.tree.leaves(limit) if np.isscalar(x)):
        raise ValueError(f"{name}(limit={limit!r}): a number above 0 is needed.")


def _above_zero(limit):
    """NaN for a limit that hyperparameters have made negative, or 0: the run then says so."""
    return jnp.where(limit > 0, limit, jnp.nan)


def _check_real(grads):
    if any(map(jnp.iscomplexobj, jax.tree.leaves(grads))):
        raise ValueError(
            "A complex gradient cannot be clipped: train the real and imaginary parts, or clip in "
            "a chain of optax's, by from_optax."
        )


def clipped(clip: Clip | None, grads: PyTree, coefficients: PyTree) -> PyTree:
    """The gradient, clipped if there is a clip."""
    return grads if clip is None else clip(grads, coefficients["clip"])


def as_clip(caller: str) -> Callable[[Any], Clip | None]:
    """The converter of a field; raises `TypeError` for what is no clip."""

    def convert(clip):
        if clip is not None and not isinstance(clip, Clip):
            raise TypeError(
                f"{caller}(clip={clip!r}) does not say of what: give ClipByGlobalNorm({clip!r}), "
                f"the norm of the whole gradient, or ClipByValue({clip!r}), each element."
            )
        return clip

    return convert
