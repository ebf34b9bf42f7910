"""An exponential average of the weights, beside any optimizer that runs backwards."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.optimizers.base import (
    DECAY,
    Coefficient,
    as_prefix,
    check_number,
    evaluate,
    numbers,
    times,
)
from hindgrad.optimizers.moves import Add, Keep, Moves, MovingOptimizer, Scale, State, is_decay


class AveragedMemory(NamedTuple):
    """The memory of `Averaged`."""

    inner: PyTree
    """The averaged optimizer's own."""
    average: PyTree
    """The average of the parameters, like them, in float32 at least."""


def _moving(inner: Any) -> MovingOptimizer:
    if not isinstance(inner, MovingOptimizer):
        raise TypeError(
            f"Averaged({type(inner).__name__}): an optimizer that is written as moves is needed, "
            "such as Momentum or Adam. With others, let the loss keep the average in the model's "
            "state."
        )
    return inner


class Averaged(MovingOptimizer):
    """The same steps, and an exponential average of the weights after each of them:
    `average ← decay · average + (1 − decay) · θ`, from the initial weights on.

        optimizer = hg.Averaged(hg.Adam(0.001), decay=0.99)
        score = hg.RunScore(lambda run, hyper, key: loss_of(run.state.average))

    Training does not see the average; a score does (Polyak & Juditsky 1992). `Reversible` runs it
    backwards with the rest.

    **Arguments:**

    - `inner`: `Momentum(…)`, `Adam(…)` or another `hg.moves.MovingOptimizer`.
    - `decay`: the share of the average kept at each step, in [0, 1): a number, a pytree of numbers
      that is a prefix of the parameters', or a function `(hyper, t)` that returns one of these.
      Its name for `Reversible(min_decay={…})` is `average`.
    """

    inner: MovingOptimizer = eqx.field(converter=_moving)
    decay: Coefficient = eqx.field(kw_only=True)

    def __check_init__(self):
        check_number("Averaged(decay)", self.decay, *DECAY)

    @property
    def ranges(self):
        return self.inner.ranges | {"average": DECAY}

    @property
    def irreversible(self):
        return self.inner.irreversible

    @property
    def gradient_is_constant(self):
        return self.inner.gradient_is_constant

    def fault(self, coefficients):
        return self.inner.fault(coefficients)

    def coefficients(self, hyper, t):
        inner = self.inner.coefficients(hyper, t)
        if "average" in inner:
            raise ValueError(
                f"Averaged({type(self.inner).__name__}): it has a coefficient `average` of its "
                "own, as an Averaged has. Average once."
            )
        return inner | {"average": evaluate(self.decay, hyper, t)}

    def constants(self):
        return self.inner.constants() | numbers({"average": self.decay})

    def clipped(self, grads, coefficients):
        return self.inner.clipped(grads, coefficients)

    def init(self, params, coefficients):
        wide = lambda p: p.astype(trees.common(p.dtype, jnp.float32))
        return AveragedMemory(self.inner.init(params, coefficients), jax.tree.map(wide, params))

    def decays(self, params, coefficients):
        average = jax.tree.map(Keep, as_prefix("average", coefficients["average"], params))
        return self.inner.decays(params, coefficients) | {"average": average}

    def moves(self, params, coefficients, decays):
        inner = self.inner.moves(params, coefficients, decays)
        before, absorb, after = ([_within(move) for move in phase] for phase in inner)
        lost = jax.tree.map(lambda d: d.lost, decays["average"], is_leaf=is_decay)
        wide = lambda p: p.astype(trees.widest(p.dtype))
        share = lambda state, _: times(lost, jax.tree.map(wide, state.params))
        averaging = [Scale(_average, "average"), Add(_average, share)]
        return Moves(before, absorb, [*after, *averaging])


def _average(state):
    return state.memory.average


def _inner(state):
    return State(state.params, state.memory.inner)


def _within(move):
    """A move of the averaged optimizer, on the state with the average in it."""
    where = lambda state: move.where(_inner(state))
    if isinstance(move, Scale):
        return move._replace(where=where)
    return Add(where, lambda state, gradient: move.delta(_inner(state), gradient))
