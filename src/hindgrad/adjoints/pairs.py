"""Antithetic pairs: members on either side of the hyperparameters, and what their scores tell."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.optimizers import base as coefficients


def as_key(key: PRNGKeyArray | int) -> PRNGKeyArray:
    """A key, from a seed too."""
    return jax.random.key(key) if isinstance(key, int) else key


def as_spread(spread: PyTree) -> PyTree:
    """Spreads as arrays, so that another one does not recompile.

    Raises `ValueError` if one is no number, not above 0, or not finite.
    """
    for leaf in jax.tree.leaves(spread):
        if not isinstance(leaf, Tracer) and not _is_positive(np.asarray(leaf)):
            raise ValueError(
                f"spread={leaf!r} is no standard deviation: a number above 0 is needed, such as "
                "0.1 for logarithms of rates."
            )
    return jax.tree.map(lambda x: trees.as_hyper(float(x) if isinstance(x, int) else x), spread)


def check_counts(adjoint: Any, *names: str) -> None:
    """Raises `ValueError` if one of these settings is not a whole number, or below 1; `block` may
    be None."""
    for name in names:
        value = getattr(adjoint, name)
        if name == "block" and value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{type(adjoint).__name__}({name}={value!r}): a whole number, at least 1 is needed."
            )


def directions(key: PRNGKeyArray, pairs: int, moving: PyTree) -> PyTree:
    """Standard normal directions for every pair, which is the leading axis; both parts of a complex
    number are standard normal."""
    leaves, structure = jax.tree.flatten(moving)
    keys = jax.random.split(key, max(1, len(leaves)))

    def draw(key, x):
        direction = jax.random.normal(key, (pairs, *x.shape), x.dtype)
        return direction * 2**0.5 if jnp.iscomplexobj(x) else direction

    return jax.tree.unflatten(structure, map(draw, keys, leaves))


def members(moving: PyTree, spread: PyTree, along: PyTree) -> PyTree:
    """The members, `2 pairs` of them: those that go along the directions, then their opposites."""

    def around(x, width, direction):
        step = jnp.broadcast_to(width, x.shape)[None] * direction
        return jnp.concatenate([x[None] + step, x[None] - step])

    return jax.tree.map(around, moving, spread, along)


def slope(spread: PyTree, along: PyTree, scores: Float[Array, " members"]) -> PyTree:
    """The mean over the pairs of `direction · (score − its opposite's) / (2 spread)`."""
    plus, minus = jnp.split(scores, 2)
    half = (plus - minus) / 2

    def mean(width, direction):
        weights = half.astype(direction.dtype) / half.size
        return jnp.tensordot(weights, direction.conj(), 1) / jnp.broadcast_to(
            width, direction.shape[1:]
        )

    return jax.tree.map(mean, spread, along)


def finite(
    scores: Float[Array, " members"], before: Float[Array, " members"] | float = -jnp.inf
) -> Float[Array, " members"]:
    """The scores, with the worst of all in place of those that are not finite: a run that diverged
    is no better than that. Scores `before` count for members without a finite one; NaN if there
    is none at all."""
    worst = jnp.max(jnp.where(jnp.isfinite(scores), scores, before))
    worst = jnp.where(jnp.isfinite(worst), worst, jnp.nan)
    return jnp.where(jnp.isfinite(scores), scores, worst)


def each(function: Callable[..., Any], block: int | None) -> Callable[..., Any]:
    """`function` for all members side by side, or for a block of them at a time."""
    if block is None:
        return jax.vmap(function)
    return lambda *args: jax.lax.map(lambda xs: function(*xs), args, batch_size=block)


def spread_over(spread: PyTree, moving: PyTree, hyper: PyTree) -> PyTree:
    """The spread of every leaf that moves.

    Raises `ValueError` if the spread is no prefix of the hyperparameters.
    """
    floats = eqx.filter(hyper, eqx.is_inexact_array)
    whole = coefficients.spread("spread", spread, floats)
    return jax.tree.map(lambda x, width: None if x is None else width, moving, whole, is_leaf=_none)


def _is_positive(values):
    return jnp.issubdtype(values.dtype, np.number) and np.all((values > 0) & np.isfinite(values))


def _none(x):
    return x is None


@eqx.filter_custom_vjp
def once(inputs: PyTree, name: str) -> PyTree:
    """The inputs, which refuse a second derivative: that of an estimate is not what it looks like
    (that of a step function is zero)."""
    del name
    return inputs


@once.def_fwd
def _once_forward(perturbed, inputs, name):
    if any(jax.tree.leaves(perturbed)):
        raise ValueError(
            f"{name} gives first derivatives only. Use Checkpointed() for second ones."
        )
    return inputs, None


@once.def_bwd
def _once_backward(residuals, cotangent, perturbed, inputs, name):
    del residuals, cotangent, perturbed, name
    return jax.tree.map(lambda _: None, eqx.filter(inputs, eqx.is_inexact_array))


def pulled(
    estimate: tuple[PyTree, PyTree], cotangent: Float[Array, ""], inputs: tuple[PyTree, ...]
) -> tuple[PyTree, PyTree, PyTree]:
    """The cotangents of (what is closed over, hyper, what was handed on), from an estimate of the
    gradient and what is to be handed on."""
    gradient, handed = estimate
    nothing = jax.tree.map(lambda _: None, eqx.filter(inputs[0], eqx.is_inexact_array))
    return nothing, jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient), handed


def refuse_others(perturbed: PyTree, name: str) -> None:
    """Raises `ValueError` if a derivative with respect to anything but `hyper` is asked for."""
    if any(jax.tree.leaves(perturbed)):
        raise ValueError(
            f"{name} was asked for a derivative with respect to something that the objective "
            "closes over (data, initial weights, or hyperparameters from outside). It knows only "
            "that with respect to hyper in objective(hyper): put it there, or use Checkpointed(); "
            "or put jax.lax.stop_gradient around it."
        )


def alone(name: str) -> ValueError:
    """What to raise where a run by itself is given the adjoint."""
    return ValueError(
        f"{name} perturbs hyperparameters and compares scores, so a run by itself is not enough. "
        f"Put start, run and score into an Objective, and call objective(hyper, adjoint={name}(…))."
    )
