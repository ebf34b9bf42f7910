"""Antithetic pairs: members on either side of the hyperparameters, and what their scores tell."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import placement, trees
from hindgrad.adjoints.base import Adjoint, Restated, ScoredRun
from hindgrad.adjoints.stored import Stored
from hindgrad.optimizers import base as coefficients


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
        step = (jnp.broadcast_to(width, x.shape)[None] * direction).astype(x.dtype)
        return jnp.concatenate([x[None] + step, x[None] - step])

    return jax.tree.map(around, moving, spread, along)


def slope(spread: PyTree, along: PyTree, scores: Float[Array, " members"]) -> PyTree:
    """The mean over the pairs of `direction · (score − its opposite's) / (2 spread)`."""
    plus, minus = jnp.split(scores, 2)
    half = (plus - minus) / 2

    def mean(width, direction):
        weights = half.astype(direction.dtype) / half.size
        mean = jnp.tensordot(weights, direction.conj(), 1)
        return (mean / jnp.broadcast_to(width, mean.shape)).astype(direction.dtype)

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


def each(function: Callable[..., Any], block: int | None, axis: str | None) -> Callable[..., Any]:
    """`function` for all members side by side, split over an axis of the mesh if one is named; or
    for a block of them at a time."""
    if block is not None:
        return lambda *args: jax.lax.map(lambda xs: function(*xs), args, batch_size=block)
    if axis is None:
        return jax.vmap(function)
    mesh = jax.sharding.get_abstract_mesh()
    lanes = placement.lanes(axis, mesh, f"axis={axis!r}: members")
    split = lambda x: placement.split_first(x, lanes)
    return lambda *args: jax.vmap(function, spmd_axis_name=axis)(*jax.tree.map(split, args))


def check_either(name: str, block: int | None, axis: str | None) -> None:
    """Raises `ValueError` if members are to be run a block at a time and split over an axis."""
    if block is not None and axis is not None:
        raise ValueError(
            f"{name}(block={block}, axis={axis!r}): members split over an axis are run all at "
            "once. Give one of the two."
        )


def spread_over(spread: PyTree, moving: PyTree) -> PyTree:
    """The spread of every leaf that moves.

    Raises `ValueError` if the spread is no prefix of the hyperparameters.
    """
    return coefficients.spread("spread", spread, moving)


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


class Estimator(Adjoint):
    """An adjoint that estimates the gradient from scores of perturbed runs."""

    takes_apart: ClassVar[bool]
    """Whether it needs the run in parts, or only its score at the end."""

    @abc.abstractmethod
    def estimate(self, run: ScoredRun, hyper: PyTree) -> PyTree:
        """The estimate by itself: the derivative with respect to the inexact arrays in `hyper`."""

    def run(self, dynamics, state):
        del dynamics, state
        name = type(self).__name__
        raise ValueError(
            f"{name} perturbs hyperparameters and compares scores, so a run by itself is not "
            "enough. Put start, run and score into an Objective, and call "
            f"objective(hyper, adjoint={name}(…))."
        )

    def evaluate(self, run, hyper):
        return _evaluated((_opened(run, hyper, self.takes_apart), hyper), self)


class _Opened(ScoredRun):
    """A run, with what its parts close over made part of the pytree."""

    whole: Callable
    parts: tuple[Callable, ...]
    key: PRNGKeyArray  # pyright: ignore[reportIncompatibleVariableOverride]
    length: int = eqx.field(static=True)

    @property
    def steps(self):
        return self.length

    def __call__(self, hyper, adjoint):
        del adjoint  # nothing is differentiated
        return self.whole(hyper)

    def begin(self, hyper, key):
        return self.parts[0](hyper, key)

    def step(self, hyper, key, state, t):
        return self.parts[1](hyper, key, state, t)

    def score(self, hyper, key, state):
        return self.parts[2](hyper, key, state)


def _opened(run, hyper, takes_apart):
    parts = ()
    if takes_apart:
        state = eqx.filter_eval_shape(run.begin, hyper, run.key)
        parts = (
            trees.close(run.begin, hyper, run.key),
            trees.close(run.step, hyper, run.key, state, jnp.int32(0)),
            trees.close(run.score, hyper, run.key, state),
        )
    whole = trees.close(lambda hyper: run(hyper, Stored()), hyper)
    return _Opened(whole=whole, parts=parts, key=run.key, length=run.steps)


@eqx.filter_custom_vjp
def _evaluated(inputs: PyTree, adjoint: Estimator) -> Float[Array, ""]:
    run, hyper = inputs
    return run(hyper, adjoint)


@_evaluated.def_fwd
def _evaluated_forward(perturbed, inputs, adjoint):
    name = type(adjoint).__name__
    run, hyper = once(inputs, name)
    refuse_others(perturbed[0], name)
    moving, fixed = eqx.partition(hyper, perturbed[1])
    part = Restated(run=run, key=run.key, hyper=lambda moving: eqx.combine(moving, fixed))
    gradient = adjoint.estimate(part, moving)
    return run(hyper, adjoint), gradient


@_evaluated.def_bwd
def _evaluated_backward(gradient, cotangent, perturbed, inputs, adjoint):
    del perturbed, adjoint
    nothing = jax.tree.map(lambda _: None, eqx.filter(inputs[0], eqx.is_inexact_array))
    return nothing, jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient)


def refuse_others(perturbed: PyTree, name: str) -> None:
    """Raises `ValueError` if a derivative with respect to anything but `hyper` is asked for."""
    if any(jax.tree.leaves(perturbed)):
        raise ValueError(
            f"{name} was asked for a derivative with respect to something that the objective "
            "closes over (data, initial weights, or hyperparameters from outside). It knows only "
            "that with respect to hyper in objective(hyper): put it there, or use Checkpointed(); "
            "or put jax.lax.stop_gradient around it."
        )
