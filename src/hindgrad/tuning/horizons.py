"""How far back real-time tuning looks, and what it forgets after each change."""

import abc
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint, Implicit, Stored, tangents
from hindgrad.adjoints.tangent_loop import TangentLoop


class Position(NamedTuple):
    """Where a run is: its state (params, memory), the derivative of the state with respect to
    the hyperparameters as far as it is carried along, and the next step."""

    state: PyTree
    tangents: PyTree
    t: Int[Array, ""]


class Stretch(NamedTuple):
    """A stretch of a run: where it ended, the training losses on the way, and the validation loss
    there with its hypergradient."""

    end: Position
    losses: Float[Array, " steps"]
    value: Float[Array, ""]
    gradient: PyTree


Run = Callable[[PyTree, PyTree, Int[Array, ""], Adjoint], tuple[PyTree, Array]]
"""`(state, hyper, t, adjoint) -> (state after some steps from t on, losses)`."""
Score = Callable[[PyTree, PyTree, Int[Array, ""]], Array]
"""`(state, hyper, t) -> validation loss`."""


class Horizon(eqx.Module):
    """What of the past a hypergradient of real-time tuning takes into account."""

    @abc.abstractmethod
    def begin(self, state: PyTree, hyper: PyTree) -> PyTree:
        """The tangents before the first step."""

    @abc.abstractmethod
    def advance(self, run: Run, score: Score, position: Position, hyper: PyTree) -> Stretch:
        """Trains on, and takes the hypergradient where that ends."""

    @abc.abstractmethod
    def after(self, position: Position, start: Position) -> Position:
        """From where training goes on when the hyperparameters have been changed."""


class Forwards(Horizon):
    """Tangents of the state for every hyperparameter, carried along (Franceschi et al. 2017,
    section 4.3): for few hyperparameters."""

    def begin(self, state, hyper):
        size = trees.size(hyper)
        floats = eqx.filter(state, eqx.is_inexact_array)
        return jax.tree.map(lambda x: jnp.zeros((size, *x.shape), x.dtype), floats)

    def advance(self, run, score, position, hyper):
        floats, rest = eqx.partition(position.state, eqx.is_inexact_array)
        units = tangents.directions(hyper, 0, trees.size(hyper))

        def train(at):
            state, losses = run(eqx.combine(at[0], rest), at[1], position.t, TangentLoop())
            return state, jax.lax.stop_gradient(losses)

        (state, losses), (moved, _) = tangents.push(
            train, (floats, hyper), (position.tangents, units)
        )
        t = position.t + losses.shape[0]
        value, (d_state, d_hyper) = eqx.filter_value_and_grad(lambda at: score(at[0], at[1], t))(
            (state, hyper)
        )
        gradient = tangents.pull(d_state, moved) + tangents.flat(d_hyper)
        end = Position(state, moved, t)
        return Stretch(end, losses, value, tangents.unflat(gradient, hyper))


class Carried(Forwards):
    """Nothing is forgotten: the tangents of the whole run so far (RTHO, Franceschi et al. 2017)."""

    def after(self, position, start):
        del start
        return position


class Forgotten(Forwards):
    """The tangents begin anew after every change: each hypergradient looks back on the steps since
    the last change only. With one step, it is hypergradient descent (Baydin et al. 2018)."""

    def after(self, position, start):
        return position._replace(tangents=start.tangents)


class Restarted(Forwards):
    """The tangents and the training begin anew after every change: whole tunings of a short run."""

    def after(self, position, start):
        del position
        return start


class LastWindow(Horizon):
    """Backwards through the steps since the last change: what `Forgotten` gives, at a cost that
    does not grow with the number of hyperparameters.

    **Arguments:**

    - `adjoint`: how; its memory is that of the window.
    """

    adjoint: Adjoint = Stored()

    def __check_init__(self):
        if isinstance(self.adjoint, Implicit):
            raise ValueError(
                "LastWindow(adjoint=Implicit()): a window does not end at a minimum. Use Stored() "
                "or Checkpointed()."
            )

    def begin(self, state, hyper):
        del state, hyper

    def advance(self, run, score, position, hyper):
        def value(hyper):
            state, losses = run(position.state, hyper, position.t, self.adjoint)
            t = position.t + losses.shape[0]
            return score(state, hyper, t), (state, jax.lax.stop_gradient(losses), t)

        (value_, (state, losses, t)), gradient = eqx.filter_value_and_grad(value, has_aux=True)(
            hyper
        )
        return Stretch(Position(state, None, t), losses, value_, gradient)

    def after(self, position, start):
        del start
        return position
