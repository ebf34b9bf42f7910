"""`PersistentEvolution`: evolution strategies on runs that go on from one estimate to the next."""

import math
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, UInt32

from hindgrad import trees
from hindgrad.adjoints import antithetic
from hindgrad.adjoints.base import Hypergradient, ScoredRun, Traits
from hindgrad.arguments import as_key, whole, whole_or_none


class PersistentEvolution(antithetic.Estimator):
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
    - `axis`: an automatic axis of the mesh that is set, over which members are split.

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

    takes_apart = True

    pairs: int = eqx.field(default=16, converter=whole("PersistentEvolution", "pairs"))
    window: int = eqx.field(kw_only=True, converter=whole("PersistentEvolution", "window"))
    spread: PyTree = eqx.field(kw_only=True, converter=antithetic.as_spread)
    key: PRNGKeyArray = eqx.field(
        default=0, kw_only=True, converter=partial(as_key, "PersistentEvolution")
    )
    block: int | None = eqx.field(
        default=None, kw_only=True, converter=whole_or_none("PersistentEvolution", "block")
    )
    axis: str | None = eqx.field(default=None, kw_only=True, static=True)

    def __check_init__(self):
        antithetic.check_either("PersistentEvolution", self.block, self.axis)

    def hypergradient(self, run, hyper, carry=None):
        """Carries the members on their way through the run."""
        hyper = antithetic.once(hyper, "PersistentEvolution")
        window = self._window(run, hyper)
        passing = window.begin() if carry is None else carry
        windows = passing.changes.size
        if (windows, passing.scores.size) != (window.count, 2 * self.pairs):
            raise ValueError(
                f"PersistentEvolution was given the carry of another one: of {windows} windows and "
                f"{passing.scores.size} members, where {window.count} and {2 * self.pairs} are "
                "needed. Begin with carry=None."
            )
        count = jnp.where(passing.done == 0, windows, 1)
        passing, gradient = window.go_on(passing, count)
        gradient = jax.tree.map(lambda g: g * (windows / count).astype(g.dtype), gradient)
        return Hypergradient(jnp.sum(passing.changes), gradient, passing)

    def first_carry(self, run, hyper):
        return self._window(run, hyper).begin()

    def estimate(self, run, hyper):
        window = self._window(run, hyper)
        passing = window.begin()
        return window.go_on(passing, passing.changes.size)[1]

    def _window(self, run, hyper):
        moving, fixed = eqx.partition(hyper, eqx.is_inexact_array)
        spread = antithetic.spread_over(self.spread, moving)
        return _Window(run, self, moving, fixed, spread)


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
    key: UInt32[Array, "..."]
    """The data of the key of this pass."""
    done: Int[Array, ""]
    """How many windows there were, in this and all passes before."""


class _Window(eqx.Module):
    """What takes the members through one window."""

    run: ScoredRun
    adjoint: PersistentEvolution
    moving: PyTree
    fixed: PyTree
    spread: PyTree

    @property
    def count(self) -> int:
        """How many windows there are in a pass."""
        return math.ceil(self.run.steps / self.adjoint.window)

    def begin(self) -> _Passing:
        """Before the first window."""
        run, pairs = self.run, self.adjoint.pairs
        zeros = lambda count: lambda x: jnp.zeros((count, *x.shape), x.dtype)
        hyper = eqx.combine(self.moving, self.fixed)
        state = run.begin(hyper, run.key)
        score = eqx.filter_eval_shape(run.score, hyper, run.key, state)
        return _Passing(
            jax.tree.map(lambda x: jnp.broadcast_to(x, (2 * pairs, *x.shape)), state),
            jax.tree.map(zeros(pairs), self.moving),
            jnp.zeros(2 * pairs, score.dtype),
            jnp.zeros(self.count, score.dtype),
            jax.random.key_data(run.key),
            jnp.int32(0),
        )

    def go_on(self, passing: _Passing, count: int | Int[Array, ""]) -> tuple[_Passing, PyTree]:
        """So many windows: the members after them, and the sum of the shares."""

        def one(_, carry):
            passing, total = carry
            passing, share = self(passing)
            return passing, trees.add(total, share)

        zeros = jax.tree.map(jnp.zeros_like, self.moving)
        return jax.lax.fori_loop(0, count, one, (passing, zeros))

    def __call__(self, passing: _Passing) -> tuple[_Passing, PyTree]:
        """The members after it, and its share of the derivative."""
        adjoint, run = self.adjoint, self.run
        number = passing.done % passing.changes.size
        is_first = number == 0
        data = jnp.where(is_first, jax.random.key_data(run.key), passing.key)
        key = jax.random.wrap_key_data(data, impl=jax.random.key_impl(run.key))
        first = number * adjoint.window
        last = jnp.minimum(first + adjoint.window, run.steps)

        def go_on(moving, state):
            hyper = eqx.combine(moving, self.fixed)
            state = jax.lax.cond(is_first, lambda: run.begin(hyper, key), lambda: state)
            step = lambda t, state: run.step(hyper, key, state, jnp.asarray(t))
            state = jax.lax.fori_loop(first, last, step, state)
            return state, run.score(hyper, key, state)

        fresh = antithetic.directions(
            jax.random.fold_in(adjoint.key, passing.done), adjoint.pairs, self.moving
        )
        along = jax.tree.map(lambda a, f: jnp.where(is_first, f, a + f), passing.along, fresh)
        members = antithetic.members(self.moving, self.spread, fresh)
        states, scores = antithetic.each(go_on, adjoint.block, adjoint.axis)(
            members, passing.states
        )
        before = jnp.where(is_first, -jnp.inf, passing.scores)
        scores = antithetic.finite(scores, before)
        changes = scores - jnp.where(is_first, 0, passing.scores)
        share = antithetic.slope(self.spread, along, changes)
        latest = passing.changes.at[number].set(jnp.mean(changes))
        return _Passing(states, along, scores, latest, data, passing.done + 1), share
