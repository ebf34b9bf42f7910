"""How the weights' gradient is estimated, a window or an episode at a time."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.base import Hypergradient, ScoredRun
from hindgrad.learned import problems
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.problems import Family, Position


class Episode(eqx.Module):
    """One training of `batch` problems, and what is to be lowered about it: L(φ) = E Σ_t w_t f(θ_t)
    (Andrychowicz et al. 2016, eq. 3), or Σ_t w_t E measure(f(θ_t))."""

    optimizer: LearnedOptimizer
    family: Family
    step_weights: Float[Array, " steps"]
    measure: Callable[[Float[Array, "..."]], Float[Array, "..."]]
    batch: int = eqx.field(static=True)

    @property
    def steps(self) -> int:
        """How many steps a training takes."""
        return self.step_weights.size

    def draw(self, key: PRNGKeyArray) -> problems.Problems:
        """The problems of that key."""
        return problems.draw(self.family, key, self.batch)

    def loss(self, losses: Float[Array, "steps problems"], t: Array) -> Float[Array, ""]:
        """What the losses of the steps from `t` on add to the sum."""
        weights = jax.lax.dynamic_slice(self.step_weights, (t,), (losses.shape[0],))
        return jnp.dot(weights, jnp.mean(self.measure(losses), axis=1))


class Estimate(eqx.Module):
    """A way to come by the gradient, with what it carries from one to the next."""

    episode: eqx.AbstractVar[Episode]

    @property
    @abc.abstractmethod
    def weight(self) -> Float[Array, ""]:
        """The sum of the step weights in its loss, in the mean over an episode."""

    @abc.abstractmethod
    def begin(self, weights: PyTree, key: PRNGKeyArray) -> PyTree:
        """What is carried, to begin with."""

    @abc.abstractmethod
    def __call__(self, weights: PyTree, carried: PyTree, key: PRNGKeyArray) -> Hypergradient:
        """The loss and its gradient by the weights. `key` draws problems, if it is time."""


class Backpropagated(Estimate):
    """Truncated backpropagation: the derivative of one window's loss, for which the state at its
    start is a constant. The state is carried on to the next window; fresh problems are drawn at the
    end of an episode, and when the loss or its derivative is not finite."""

    episode: Episode
    unroll: int = eqx.field(static=True)
    adjoint: Adjoint

    @property
    def weight(self):
        return self.unroll * jnp.mean(self.episode.step_weights)

    def begin(self, weights, key):
        del weights
        return self._first(key), key

    def __call__(self, weights, carried, key):
        episode, (position, drawn) = self.episode, carried
        current = episode.draw(drawn)

        def loss(weights):
            after, losses = problems.run(
                episode.optimizer, weights, current, position, self.unroll, adjoint=self.adjoint
            )
            return episode.loss(losses, position.t), after

        (value, after), grads = jax.value_and_grad(loss, has_aux=True)(weights)
        is_finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(grads))
        is_over = (after.t + self.unroll > episode.steps) | ~is_finite
        carried = jax.lax.cond(
            is_over, lambda: (self._first(key), key), lambda: (_strong(after), drawn)
        )
        return Hypergradient(value, grads, carried)

    def _first(self, key):
        return _strong(problems.begin(self.episode.optimizer, self.episode.draw(key)))


class Smoothed(Estimate):
    """The gradient of a smoothed loss by `Evolution`, over whole episodes, or by
    `PersistentEvolution`, window by window."""

    episode: Episode
    adjoint: Adjoint

    @property
    def weight(self):
        return jnp.sum(self.episode.step_weights)

    def begin(self, weights, key):
        return self.adjoint.first_carry(_Scored(episode=self.episode, key=key), weights)

    def __call__(self, weights, carried, key):
        run = _Scored(episode=self.episode, key=key)
        return self.adjoint.hypergradient(run, weights, carried)


class _Scored(ScoredRun):
    """An episode, as adjoints see it: its score is the sum of the weighted losses so far."""

    episode: Episode
    key: PRNGKeyArray  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def steps(self):
        return self.episode.steps

    def __call__(self, hyper, adjoint):
        episode = self.episode
        drawn = episode.draw(self.key)
        start = problems.begin(episode.optimizer, drawn)
        _, losses = problems.run(
            episode.optimizer, hyper, drawn, start, self.steps, adjoint=adjoint
        )
        return episode.loss(losses, jnp.int32(0))

    def begin(self, hyper, key):
        del hyper
        start = problems.begin(self.episode.optimizer, self.episode.draw(key))
        return start.params, start.memory, jnp.zeros(())

    def step(self, hyper, key, state, t):
        params, memory, total = state
        at = Position(params, memory, t)
        drawn: Any = self.episode.draw(key)
        after, losses = problems.run(self.episode.optimizer, hyper, drawn, at, 1)
        share = self.episode.loss(losses, t).astype(total.dtype)
        return after.params, after.memory, total + share

    def score(self, hyper, key, state):
        del hyper, key
        return state[2]


def _strong(position):
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, x.dtype), position)
