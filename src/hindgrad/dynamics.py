"""Training as a dynamical system: one step, and the pullback of one step."""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import trees


class Pulled(NamedTuple):
    """What one step's pullback gives: cotangents of the state, a share to be summed over the
    steps, values to be kept for each step, and the step's loss again (None if it has none)."""

    state: PyTree
    share: PyTree
    kept: PyTree
    loss: Array | None = None


class Dynamics(eqx.Module):
    """`s_{k+1}, output_k = step(s_k, k)` for k = 0 … steps − 1 (Franceschi et al. 2017, eq. 1).

    A pytree of everything that the steps read: hyperparameters, data, and whatever the user's
    functions close over. A cotangent of the dynamics is therefore the hypergradient.
    """

    start: eqx.AbstractVar[Int[Array, ""]]
    steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def step(self, state: PyTree, k: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The state after step `k`, and the step's output."""

    def recorded(self, state: PyTree, k: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The same as `step`, where a pullback is its derivative: further derivatives are those of
        what a loop by hand would record."""
        return self.step(state, k)

    @abc.abstractmethod
    def pullback(
        self, wanted: PyTree, state: PyTree, k: Int[Array, ""], after: PyTree | None = None
    ) -> Callable[[PyTree], Pulled]:
        """What pulls a cotangent of (state after, output) back through step `k` from `state`.

        `wanted` is True at the leaves of these dynamics whose cotangents are asked for. `after` is
        the state after the step, where that is known.
        """

    def linearize(
        self, wanted: PyTree, state: PyTree, k: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, Callable[[PyTree], Pulled]]:
        """The state after step `k`, the step's output, and the pullback at once."""
        after, output = self.step(state, k)
        return after, output, self.pullback(wanted, state, k, after)

    @abc.abstractmethod
    def losses(self, outputs: PyTree) -> Float[Array, " steps"] | None:
        """The losses among the stacked outputs; None if there are none."""

    @abc.abstractmethod
    def no_share(self, wanted: PyTree) -> PyTree:
        """The zero with which the summing of shares begins."""

    @abc.abstractmethod
    def finish(
        self, wanted: PyTree, share: PyTree, kept: PyTree, initial: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The cotangents of the dynamics and of the initial state, from what the steps gave."""

    def window(self, first: int, steps: int) -> "Dynamics":
        """These dynamics over `steps` steps from the `first` on."""
        return dataclasses.replace(self, start=self.start + first, steps=steps)


class Recurrence(Dynamics):
    """Any dynamics `function(state, hyper, t) -> (state, output)`, pulled back by `jax.vjp`."""

    function: Callable
    hyper: PyTree
    start: Int[Array, ""]
    steps: int = eqx.field(static=True)

    def step(self, state, k):
        return self.function(state, self.hyper, self.start + k)

    def pullback(self, wanted, state, k, after=None):
        del after
        sources, rest = eqx.partition(self, wanted)

        def step(sources, state):
            return eqx.combine(sources, rest).step(state, k)

        after, pull_step = eqx.filter_vjp(step, sources, state)

        def pull(cotangent):
            share, state = pull_step(trees.zeros_where_none(after, cotangent))
            return Pulled(state, share, None)

        return pull

    def losses(self, outputs):
        del outputs

    def no_share(self, wanted):
        return jax.tree.map(jnp.zeros_like, eqx.filter(self, wanted))

    def finish(self, wanted, share, kept, initial):
        del wanted, kept
        return share, initial
