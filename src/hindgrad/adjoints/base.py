"""What an adjoint is, and what it is given and finds."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hindgrad.adjoints.failures import Status
from hindgrad.dynamics import Dynamics


class Traits(NamedTuple):
    """What an adjoint can do, in words: its row in the documentation's table."""

    states: str
    """Where it gets past states from."""
    memory: str
    """What it keeps while a hypergradient is computed."""
    replays: str
    """Which steps it runs again."""
    exact: str
    """Whether its hypergradient is the run's own, up to rounding."""
    optimizers: str
    """Which optimizers it works with."""


class ScoredRun(eqx.Module):
    """A start, a run and a score, as an objective shows them to an adjoint: as one function, and
    in parts. A state is the arrays among (params, the optimizer's memory, the model's state)."""

    key: eqx.AbstractVar[PRNGKeyArray]
    """The randomness of the run."""

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """How many steps the run takes."""

    @abc.abstractmethod
    def __call__(self, hyper: PyTree, adjoint: "Adjoint") -> Float[Array, ""]:
        """The score of the whole run, which `adjoint` runs."""

    @abc.abstractmethod
    def begin(self, hyper: PyTree, key: PRNGKeyArray) -> PyTree:
        """The state at the start."""

    @abc.abstractmethod
    def step(self, hyper: PyTree, key: PRNGKeyArray, state: PyTree, t: Int[Array, ""]) -> PyTree:
        """The state after step `t` from that before it; its derivative is JAX's own."""

    @abc.abstractmethod
    def score(self, hyper: PyTree, key: PRNGKeyArray, state: PyTree) -> Float[Array, ""]:
        """The score of the parameters in a state."""


class Adjoint(eqx.Module):
    """How the derivative of a run is computed."""

    traits: ClassVar[Traits | None] = None

    @abc.abstractmethod
    def run(self, dynamics: Dynamics, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs all steps from `state`: the final state and the outputs stacked over the steps,
        differentiable with respect to every inexact array in `dynamics` and `state`."""

    def hypergradient(self, run: ScoredRun, hyper: PyTree, carry: PyTree = None) -> "Hypergradient":
        """The score, and its derivative with respect to the inexact arrays in `hyper`.

        One hypergradient of a row may carry arrays to the next: `carry` is what the one before
        returned, or `first_carry` at the beginning. An adjoint with a `failure` gives NaN and a
        status in place of its errors.
        """
        del carry
        value, gradient = eqx.filter_value_and_grad(lambda hyper: run(hyper, self))(hyper)
        return Hypergradient(value, gradient)

    def first_carry(self, run: ScoredRun, hyper: PyTree) -> PyTree:
        """What the first hypergradient of a row is given; None where nothing is carried."""
        del run, hyper

    def pieces(self, total: int) -> "Pieces | None":
        """How a run of `total` steps is run in pieces, each a program of its own, and gone back
        through piece by piece, to the same derivative; None if there is no such way."""
        del total

    def evaluate(self, run: ScoredRun, hyper: PyTree) -> Float[Array, ""]:
        """`run(hyper, adjoint)`, whose derivative JAX takes: for an adjoint that has something to
        gain from seeing the start and the score too."""
        return run(hyper, self)


class Piece(NamedTuple):
    """What one piece of a run gives."""

    position: PyTree
    """Where the run is after it: what the next piece begins from."""
    losses: Float[Array, " steps"]
    tape: PyTree
    """What the way back needs beside the positions before and after; None if nothing."""
    fault: Int[Array, " 3"] | None
    """Why the run cannot go on, as numbers of which the first is 0 if it can."""


class PulledPiece(NamedTuple):
    """What going back through one piece gives."""

    dynamics: PyTree
    """The cotangents of the leaves of the dynamics that were asked for."""
    state: PyTree
    """The cotangent of the state before it."""
    position: PyTree
    """The position before it, as the way back found it; None if that starts from it."""
    fault: Int[Array, " 3"] | None
    """As a piece has it."""


class Pieces(eqx.Module):
    """A run in pieces. A position is where it is between two of them, in the adjoint's own form;
    `like` gives the structs of a state."""

    replays: ClassVar[bool]
    """Whether the way back runs a piece again, and so needs no tape and no end of it."""

    @abc.abstractmethod
    def begin(self, dynamics: Dynamics, state: PyTree) -> PyTree:
        """The position of a state."""

    @abc.abstractmethod
    def state(self, dynamics: Dynamics, like: PyTree, position: PyTree) -> PyTree:
        """The state of a position."""

    @abc.abstractmethod
    def forward(self, dynamics: Dynamics, like: PyTree, position: PyTree, *, keep: bool) -> Piece:
        """Runs all steps of the dynamics; without a tape unless `keep`."""

    @abc.abstractmethod
    def backward(
        self,
        dynamics: Dynamics,
        wanted: PyTree,
        like: PyTree,
        ends: tuple[PyTree, Piece],
        cotangents: PyTree,
    ) -> PulledPiece:
        """Pulls the cotangents of (state after, losses) back through a piece; `ends` are the
        position before it and what it gave, `wanted` is True at the leaves of the dynamics that
        are asked for."""

    def marks(self, position: PyTree) -> np.ndarray:
        """Numbers by which a position is known when the way back comes to it; none where that
        starts from it."""
        del position
        return np.zeros(0, np.uint32)

    def fault(self, marks: np.ndarray, position: PyTree) -> np.ndarray | None:
        """The fault of a way back that came to `position`, and not to that with these marks."""
        del marks, position

    def describe(self, fault: Any, first: int, leaves: Sequence[str]) -> str:
        """A fault of a piece that begins at step `first` in words, empty if there is none;
        `leaves` are the names of (params, memory)."""
        del fault, first, leaves
        return ""


class Hypergradient(NamedTuple):
    """What an adjoint finds."""

    value: Float[Array, ""]
    """The score."""
    gradient: PyTree
    """Its derivative, like the inexact arrays in the hyperparameters."""
    carry: PyTree = None
    """What the next hypergradient can go on from."""
    status: Status | None = None
    """Whether there is one; None where that is never in doubt."""


def _same(x):
    return x


class Restated(ScoredRun):
    """A run of other hyperparameters, or by another adjoint, than it is given."""

    run: ScoredRun
    key: PRNGKeyArray  # pyright: ignore[reportIncompatibleVariableOverride]
    hyper: Callable[[PyTree], PyTree] = _same
    adjoint: Callable[[Adjoint], Adjoint] = _same

    @property
    def steps(self):
        return self.run.steps

    def __call__(self, hyper, adjoint):
        return self.run(self.hyper(hyper), self.adjoint(adjoint))

    def begin(self, hyper, key):
        return self.run.begin(self.hyper(hyper), key)

    def step(self, hyper, key, state, t):
        return self.run.step(self.hyper(hyper), key, state, t)

    def score(self, hyper, key, state):
        return self.run.score(self.hyper(hyper), key, state)


class OneStep(Adjoint):
    """A run of one step, without a loop: JAX's own derivative."""

    def run(self, dynamics, state):
        after, output = dynamics.step(state, jnp.int32(0))
        return after, jax.tree.map(lambda x: x[None], output)


def forward(dynamics: Dynamics, state: PyTree) -> tuple[PyTree, PyTree]:
    """Runs all steps and keeps nothing: the final state and the stacked outputs."""
    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    return jax.lax.scan(lambda state, k: dynamics.step(state, k), state, ks)
