"""What an adjoint is, and the one backward pass that those of the reverse family share."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import purity
from hindgrad.adjoints.failures import Status
from hindgrad.dynamics import Dynamics, Pulled
from hindgrad.sums import Compensated


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

    def evaluate(self, run: ScoredRun, hyper: PyTree) -> Float[Array, ""]:
        """`run(hyper, adjoint)`, whose derivative JAX takes: for an adjoint that has something to
        gain from seeing the start and the score too."""
        return run(hyper, self)


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


class Recall(Adjoint):
    """The reverse family: goes back through the run, and asks for its past states.

    A member says what it keeps on the way forward (`record`) and how it gets a state back from
    that (`recall`); the backward pass is here, once for all.
    """

    @abc.abstractmethod
    def record(self, dynamics: Dynamics, state: PyTree) -> tuple[PyTree, PyTree, PyTree]:
        """Runs all steps: the final state, the stacked outputs, and the tape."""

    @abc.abstractmethod
    def recall(self, dynamics: Dynamics, tape: PyTree, k: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The state before step `k`, and the tape from which the one before `k − 1` is recalled.

        Called for k = steps − 1, …, 0 in this order.
        """

    def is_exact(self, k: Int[Array, "..."]) -> Bool[Array, "..."] | bool:
        """Whether the state recalled before step `k` is the run's own: there, its loss must be that
        of the way forward."""
        del k
        return True

    def differentiable(self) -> "Recall":
        """The member whose backward pass can itself be differentiated, for second derivatives."""
        return self

    def run(self, dynamics, state):
        return _run((dynamics, state), self)


class OneStep(Adjoint):
    """A run of one step, without a loop: JAX's own derivative."""

    def run(self, dynamics, state):
        after, output = dynamics.step(state, jnp.int32(0))
        return after, jax.tree.map(lambda x: x[None], output)


def forward(dynamics: Dynamics, state: PyTree) -> tuple[PyTree, PyTree]:
    """Runs all steps and keeps nothing: the final state and the stacked outputs."""
    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    return jax.lax.scan(lambda state, k: dynamics.step(state, k), state, ks)


@eqx.filter_custom_vjp
def _run(inputs: tuple[Dynamics, PyTree], adjoint: Recall) -> tuple[PyTree, PyTree]:
    del adjoint
    return forward(*inputs)


@_run.def_fwd
def _run_forward(perturbed, inputs, adjoint):
    final, outputs, tape = adjoint.record(*inputs)
    return (final, outputs), (tape, final, inputs[0].losses(outputs), perturbed[0])


@_run.def_bwd
def _run_backward(residuals, cotangents, perturbed, inputs, adjoint):
    del perturbed  # traced here; the residuals hold it as Python booleans
    tape, final, losses, wanted = residuals
    if adjoint.differentiable() is adjoint:
        return _pulled_back(adjoint, wanted, inputs, cotangents, (tape, final, losses))
    return _once(inputs, cotangents, (tape, final, losses), adjoint=adjoint, wanted=wanted)


def _pulled_back(adjoint, wanted, inputs, cotangents, recorded):
    """The cotangents of the inputs."""
    dynamics, _ = inputs
    tape, final, losses = recorded
    if losses is not None:
        ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
        losses = jnp.where(adjoint.is_exact(ks), losses, jnp.nan)

    def back(tape, k, cotangent):
        state, tape = adjoint.recall(dynamics, tape, k)
        return dynamics.pullback(wanted, state, k, cotangent), tape

    pulled, _, differs = backward(back, dynamics, wanted, tape, (final, cotangents), losses)
    results = dynamics.finish(wanted, pulled.share, pulled.kept, pulled.state)
    return purity.checked(results, differs, dynamics.steps)


@eqx.filter_custom_jvp
def _once(inputs, cotangents, recorded, *, adjoint, wanted):
    """`_pulled_back`, whose own derivative is that of another member, which records anew."""
    return _pulled_back(adjoint, wanted, inputs, cotangents, recorded)


@_once.def_jvp
def _once_jvp(primals, tangents, *, adjoint, wanted):
    other = adjoint.differentiable()

    def again(inputs, cotangents):
        final, outputs, tape = other.record(*inputs)
        recorded = tape, final, inputs[0].losses(outputs)
        return _pulled_back(other, wanted, inputs, cotangents, recorded)

    return eqx.filter_jvp(again, primals[:2], tangents[:2])


def backward(
    back: Callable[[PyTree, Int[Array, ""], PyTree], tuple[Pulled, PyTree]],
    dynamics: Dynamics,
    wanted: PyTree,
    tape: PyTree,
    end: Any,
    losses: Float[Array, " steps"] | None,
) -> tuple[Pulled, PyTree, Int[Array, ""]]:
    """The backward pass: the steps' pullbacks in sum, for `Dynamics.finish`, the tape's end, and
    the last step whose loss was another than in `losses`, −1 if there is none.

    `back(tape, k, cotangent)` pulls back through step k, for k = steps − 1, …, 0. `end` is the
    final state and the cotangents of (final state, stacked outputs); None stands for a zero
    cotangent. `wanted` is True at the leaves of the dynamics whose cotangents are asked for.
    """
    final, (d_final, d_outputs) = end
    floor = purity.floor(losses)

    def body(carry, xs):
        tape, d_state, total, differs = carry
        k, d_output, loss = xs
        pulled, tape = back(tape, k, (d_state, d_output))
        if losses is not None:
            other = purity.is_other(loss, pulled.loss, floor)
            differs = jnp.where(other & (differs < 0), k, differs)
        return (tape, pulled.state, total.plus(pulled.share), differs), pulled.kept

    zeros = trees.zeros_where_none(final, d_final)
    carry = tape, zeros, Compensated.of(dynamics.no_share(wanted)), jnp.int32(-1)
    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    carry, kept = jax.lax.scan(body, carry, (ks, d_outputs, losses), reverse=True)
    tape, d_state, share, differs = carry
    return Pulled(d_state, share.total, kept), tape, differs
