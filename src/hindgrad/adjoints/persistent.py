"""`PersistentEvolution`: evolution strategies on runs that go on from one estimate to the next."""

import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import carried
from hindgrad.adjoints import pairs as antithetic
from hindgrad.adjoints.base import Adjoint, ScoredRun, Traits
from hindgrad.adjoints.stored import Stored


class PersistentEvolution(Adjoint):
    """Persistent evolution strategies (Vicol, Metz & Sohl-Dickstein 2021, Alg. 2): a run is cut
    into windows, and every member goes on from window to window with a fresh perturbation in each.
    The derivative is the sum over the windows of
    mean of ξ · (change of score at hyper + spread · ε − the same at − ε) / (2 spread), where ξ is
    the sum of a pair's directions ε in this window and those before.

        adjoint = hg.PersistentEvolution(window=20, spread=0.1)
        hg.tune(objective, hyper, optimizer, steps=500, adjoint=adjoint)

    Unbiased for the objective smoothed by a perturbation of its own in each window, however short
    the window: what acts late is not cut off. The changes of score add up to the final score.

    In `tune` the members go on from one outer step to the next, so that such a step costs one
    window of 2 · `pairs` members; only the first one takes a whole pass. Its derivative is the
    window's share, times the number of windows, and its value the mean score of the members: the
    sum of the latest change in every window; the answer is chosen by plain runs. With a key, each
    pass has a draw of its own.
    Elsewhere, a derivative is that of a whole pass, and the value the score at `hyper`.

    All members share the draw. A member whose score is not finite counts as the worst of the
    others; if there are none in the first window, value and derivative are NaN.

    **Arguments:**

    - `pairs`: how many pairs of members.
    - `window`: how many steps a window has; the last one has what is left.
    - `spread`: the standard deviation of the perturbations; a number, or a pytree of numbers and
      arrays that is a prefix of `hyper`.
    - `key`: a key or a seed of the perturbations; fresh ones are drawn in every window.
    - `block`: how many members to run side by side; all unless given.
    - `passing`: the members on their way, as floats; what `tune` hands on.

    Raises `ValueError` if a run without an `Objective` is given it, or a derivative is asked for
    with respect to anything but `hyper`.
    """

    traits = Traits(
        states="none: scores of perturbed runs are compared",
        memory="two states for each pair",
        replays="none; 2 · `pairs` further runs, in `tune` one window of each",
        exact="no: an estimate, unbiased for the smoothed objective",
        optimizers="any, differentiable or not",
    )

    pairs: int = 16
    window: int = eqx.field(kw_only=True)
    spread: PyTree = eqx.field(kw_only=True, converter=antithetic.as_spread)
    key: PRNGKeyArray = eqx.field(default=0, kw_only=True, converter=antithetic.as_key)
    block: int | None = eqx.field(default=None, kw_only=True)
    passing: PyTree = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        antithetic.check_counts(self, "pairs", "window", "block")

    def run(self, dynamics, state):
        del dynamics, state
        raise antithetic.alone("PersistentEvolution")

    def evaluate(self, run, hyper):
        settings = eqx.tree_at(lambda a: a.passing, self, None, is_leaf=_is_none)
        return _evaluated((_closed(run, hyper), hyper, self.passing), settings)

    def first_guess(self, run, hyper):
        moving = eqx.filter(hyper, eqx.is_inexact_array)

        def floats():
            return carried.as_floats(_begin(_closed(run, hyper), hyper, moving, self))

        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), eqx.filter_eval_shape(floats))

    def guessing(self, guess):
        if guess is None:
            return self
        return eqx.tree_at(lambda a: a.passing, self, guess, is_leaf=_is_none)


class _Closed(eqx.Module):
    """A `ScoredRun` in parts, with what they close over made part of the pytree."""

    whole: Callable
    begin: Callable
    step: Callable
    score: Callable
    key: PRNGKeyArray
    steps: int = eqx.field(static=True)


def _closed(run: ScoredRun, hyper: PyTree) -> _Closed:
    state = eqx.filter_eval_shape(run.begin, hyper, run.key)
    t = jnp.int32(0)
    return _Closed(
        whole=trees.close(lambda hyper: run(hyper, Stored()), hyper),
        begin=trees.close(run.begin, hyper, run.key),
        step=trees.close(run.step, hyper, run.key, state, t),
        score=trees.close(run.score, hyper, run.key, state),
        key=run.key,
        steps=run.steps,
    )


class _Passing(NamedTuple):
    """The members on their way through the run."""

    states: PyTree
    """Of every member: those along the directions, then their opposites."""
    along: PyTree
    """ξ: the sum of a pair's directions in this pass."""
    scores: Float[Array, " members"]
    """At the end of the last window; 0 before the first."""
    changes: Float[Array, " windows"]
    """The latest mean change of score in every window. That in the first is the score itself."""
    key: PRNGKeyArray
    """The draw of this pass."""
    done: Int[Array, ""]
    """How many windows there were, in this and all passes before."""


def _begin(closed: _Closed, hyper: PyTree, moving: PyTree, adjoint: PersistentEvolution):
    """Before the first window."""
    members, windows = 2 * adjoint.pairs, math.ceil(closed.steps / adjoint.window)
    zeros = lambda count: lambda x: jnp.zeros((count, *x.shape), x.dtype)
    state = closed.begin(hyper, closed.key)
    score = eqx.filter_eval_shape(closed.score, hyper, closed.key, state)
    return _Passing(
        jax.tree.map(lambda x: jnp.broadcast_to(x, (members, *x.shape)), state),
        jax.tree.map(zeros(adjoint.pairs), moving),
        jnp.zeros(members, score.dtype),
        jnp.zeros(windows, score.dtype),
        closed.key,
        jnp.int32(0),
    )


class _Window(eqx.Module):
    """What takes the members through one window."""

    closed: _Closed
    adjoint: PersistentEvolution
    moving: PyTree
    fixed: PyTree
    spread: PyTree

    def __call__(self, passing: _Passing) -> tuple[_Passing, PyTree]:
        """The members after it, and its share of the derivative."""
        adjoint, closed = self.adjoint, self.closed
        number = passing.done % passing.changes.size
        is_first = number == 0
        key = jax.lax.select(is_first, closed.key, passing.key)
        first = number * adjoint.window
        last = jnp.minimum(first + adjoint.window, closed.steps)

        def go_on(moving, state):
            hyper = eqx.combine(moving, self.fixed)
            state = jax.lax.cond(is_first, lambda: closed.begin(hyper, key), lambda: state)
            step = lambda t, state: closed.step(hyper, key, state, jnp.asarray(t))
            state = jax.lax.fori_loop(first, last, step, state)
            return state, closed.score(hyper, key, state)

        fresh = antithetic.directions(
            jax.random.fold_in(adjoint.key, passing.done), adjoint.pairs, self.moving
        )
        along = jax.tree.map(lambda a, f: jnp.where(is_first, f, a + f), passing.along, fresh)
        members = antithetic.members(self.moving, self.spread, fresh)
        states, scores = antithetic.each(go_on, adjoint.block)(members, passing.states)
        before = jnp.where(is_first, -jnp.inf, passing.scores)
        scores = antithetic.finite(scores, before)
        changes = scores - jnp.where(is_first, 0, passing.scores)
        share = antithetic.slope(self.spread, along, changes)
        latest = passing.changes.at[number].set(jnp.mean(changes))
        return _Passing(states, along, scores, latest, key, passing.done + 1), share


@eqx.filter_custom_vjp
def _evaluated(inputs: PyTree, adjoint: PersistentEvolution) -> Float[Array, ""]:
    del adjoint
    closed, hyper, _ = inputs
    return closed.whole(hyper)


@_evaluated.def_fwd
def _forward(perturbed, inputs, adjoint):
    closed, hyper, floats = antithetic.once(inputs, "PersistentEvolution")
    antithetic.refuse_others(perturbed[0], "PersistentEvolution")
    moving, fixed = eqx.partition(hyper, perturbed[1])
    spread = antithetic.spread_over(adjoint.spread, moving, hyper)
    window = _Window(closed, adjoint, moving, fixed, spread)
    passing = _begin(closed, hyper, moving, adjoint)
    windows = passing.changes.size
    if floats is None:
        _, gradient = _go_on(window, passing, windows)
        return closed.whole(hyper), (gradient, None)
    passing = carried.from_floats(floats, like=passing)
    count = jnp.where(passing.done == 0, windows, 1)
    passing, gradient = _go_on(window, passing, count)
    gradient = jax.tree.map(lambda g: g * (windows / count).astype(g.dtype), gradient)
    return jnp.sum(passing.changes), (gradient, carried.as_floats(passing))


def _go_on(window, passing, count):
    """So many windows: the members after them, and the sum of the shares."""

    def one(_, carry):
        passing, total = carry
        passing, share = window(passing)
        return passing, trees.add(total, share)

    zeros = jax.tree.map(jnp.zeros_like, window.moving)
    return jax.lax.fori_loop(0, count, one, (passing, zeros))


@_evaluated.def_bwd
def _backward(residuals, cotangent, perturbed, inputs, adjoint):
    del perturbed, adjoint
    return antithetic.pulled(residuals, cotangent, inputs)


def _is_none(x):
    return x is None
