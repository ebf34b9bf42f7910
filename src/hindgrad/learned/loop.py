"""The loop that learns an optimizer: its state, and what an iteration and an evaluation do."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import placement, programs
from hindgrad.adjoints import Adjoint, Evolution, PersistentEvolution
from hindgrad.checkpoint import Call, Checkpoint, contents, described
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.curves import learned_curves
from hindgrad.learned.gradients import Backpropagated, Episode, Estimate, Smoothed
from hindgrad.learned.problems import Family
from hindgrad.tuning.outer import outer_update
from hindgrad.tuning.probes import moves

CHUNKS = 20
"""How many times the progress line is brought up to date between two evaluations."""


class Evaluation(NamedTuple):
    """A look at the held-out problems."""

    iteration: int
    value: float
    """The weighted mean of the measured losses, over problems and steps; inf if any is NaN."""
    training: float
    """The same for the problems trained on, over the iterations since the last look; NaN without
    any."""
    skipped: int
    """How many iterations were skipped so far, because their gradient was not finite."""


class State(NamedTuple):
    """All that an interrupted fitting needs to go on."""

    weights: PyTree
    memory: PyTree
    carried: PyTree
    best: PyTree
    total: Float[Array, ""]
    """The sum of the iterations' losses since the last evaluation."""
    skipped: Array
    iteration: int
    best_value: float
    history: list[Evaluation]


class Loop(eqx.Module):
    """What stays the same throughout a fitting."""

    outer: Any
    optimizer: LearnedOptimizer
    family: Family
    held_out: Family
    step_weights: Float[Array, " steps"]
    measure: Callable
    adjoint: Adjoint
    key: PRNGKeyArray
    batch: int = eqx.field(static=True)
    unroll: int = eqx.field(static=True)
    horizons: tuple = eqx.field(static=True)
    evaluations: int = eqx.field(static=True)
    every: int = eqx.field(static=True)
    iterations: int = eqx.field(static=True)

    def draw(self, number) -> PRNGKeyArray:
        """The key of an iteration (from 2 on), of the first weights (0) and of what is held out
        (1)."""
        return jax.random.fold_in(self.key, number)

    def begin(self, weights: PyTree) -> State:
        """Before the first iteration."""
        start = State(
            weights=weights,
            memory=self.outer.init(weights),
            carried=self.carried(weights, 0),
            best=weights,
            total=jnp.zeros(()),
            skipped=jnp.int32(0),
            iteration=0,
            best_value=float("inf"),
            history=[],
        )
        return self.evaluate(start)

    def go_on(self, state: State) -> State:
        """Iterations until something else is due; if that is an evaluation, with it."""
        i = state.iteration
        marks = [first for first, _ in self.horizons if first > i]
        chunk = max(1, self.every // CHUNKS)
        evaluation = min((i // self.every + 1) * self.every, self.iterations)
        state = self.advance(state, min(i + chunk, evaluation, *marks))
        return self.evaluate(state) if state.iteration == evaluation else state

    def carried(self, weights: PyTree, iteration: int) -> PyTree:
        """What the estimate of that iteration begins with."""
        return _first(self.estimate(iteration), weights, self.draw(iteration + 2))

    def estimate(self, iteration: int) -> Estimate:
        """How the gradient of an iteration is estimated."""
        steps = [steps for first, steps in self.horizons if first <= iteration][-1]
        weights = self.step_weights[:steps]
        episode = Episode(self.optimizer, self.family, weights, self.measure, self.batch)
        if isinstance(self.adjoint, (Evolution, PersistentEvolution)):
            return Smoothed(episode, self.adjoint)
        return Backpropagated(episode, min(self.unroll, steps), self.adjoint)

    def advance(self, state: State, stop: int) -> State:
        """Iterations up to `stop`, all of one horizon."""
        i = state.iteration
        if i and any(i == first for first, _ in self.horizons):
            state = state._replace(carried=self.carried(state.weights, i))
        names = ("weights", "memory", "carried", "total", "skipped")
        moving = tuple(getattr(state, name) for name in names)
        span = jnp.int32(i), jnp.int32(stop)
        moving = advance(self.estimate(i), self.outer, moving, self.key, *span)
        return state._replace(iteration=stop, **dict(zip(names, moving, strict=True)))

    def evaluate(self, state: State) -> State:
        """A look at the held-out problems, and the best weights so far."""
        count, steps = self.evaluations, self.step_weights.size - 1
        drawn = self.held_out, self.draw(1)
        curves = learned_curves(self.optimizer, state.weights, *drawn, count=count, steps=steps)
        value = float(_weighted_mean(curves, self.measure, self.step_weights))
        value = value if np.isfinite(value) else float("inf")
        i, skipped = state.iteration, int(state.skipped)
        last = state.history[-1] if state.history else Evaluation(0, value, value, 0)
        counted = i - last.iteration - (skipped - last.skipped)
        training = float(state.total) / counted if counted else float("nan")
        history = [*state.history, Evaluation(i, value, training, skipped)]
        state = state._replace(history=history, total=jnp.zeros(()))
        if value < state.best_value:
            state = state._replace(best=state.weights, best_value=value)
        return state

    def call(self, begin: State) -> Call:
        """What must be the same for an interrupted fitting to go on."""
        names = ("batch", "unroll", "iterations", "every", "horizons", "evaluations")
        objects = ("optimizer", "adjoint", "family", "held_out")
        arguments = (
            {"function": "learned.fit"}
            | {name: getattr(self, name) for name in names}
            | {name: described(getattr(self, name)) for name in objects}
            | {"key": np.asarray(jax.random.key_data(self.key)).tolist()}
            | {"step_weights": np.asarray(self.step_weights).tolist()}
            | {"weights": contents(begin.weights)}
        )
        first = self.advance(begin, 1)
        numbers = {
            "held_out (or its measure)": [begin.history[0].value],
            "family (or its measure)": [float(first.total)],
            "outer": moves(self.outer, begin.weights),
        }
        return Call(arguments, numbers, placement.devices(first.weights))


@programs.compiled
def _first(estimate, weights, key):
    return estimate.begin(weights, key)


@programs.compiled
def advance(
    estimate: Estimate,
    outer: optax.GradientTransformation,
    moving: tuple,
    key: PRNGKeyArray,
    first: Array,
    stop: Array,
) -> tuple:
    """Iterations from `first` until `stop`: the weights, the memory of `outer`, what is carried,
    the sum of the losses, and how many iterations were skipped."""

    def one(i, moving):
        weights, memory, carried, total, skipped = moving
        value, grads, carried, _ = estimate(weights, carried, jax.random.fold_in(key, i + 2))
        ok = jnp.isfinite(optax.tree.norm(grads)) & jnp.isfinite(value)
        updates, new = outer_update(outer, grads, memory, weights, value)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)
        weights = keep(optax.apply_updates(weights, updates), weights)
        total = total + jnp.where(ok, value / estimate.weight, 0)
        return weights, keep(new, memory), carried, total, skipped + ~ok

    return jax.lax.fori_loop(first, stop, one, moving)


@programs.compiled
def _weighted_mean(curves, measure, step_weights):
    means = jnp.mean(measure(curves), axis=0)
    return jnp.dot(means, step_weights) / jnp.sum(step_weights)


NOTES = ("iteration", "best_value", "history")
"""The fields of a state that JSON can hold."""


def restored(store: Checkpoint, loop: Loop, begin: State) -> State:
    """The latest state kept, or `begin` if there is none."""

    def like(notes):
        carried = loop.carried(begin.weights, max(0, notes["iteration"] - 1))
        return begin._replace(carried=carried)

    state = store.restore(begin, like, NOTES)
    return state._replace(history=[Evaluation(*record) for record in state.history])


def save(store: Checkpoint, state: State, *, now: bool) -> None:
    """Keeps the state; unless `now`, only if the last one kept is some seconds old."""
    store.save(state.iteration, state, NOTES, now=now)
