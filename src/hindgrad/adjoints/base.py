"""What an adjoint is, and the one backward pass that those of the reverse family share."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from hindgrad import trees
from hindgrad.dynamics import Dynamics


class Adjoint(eqx.Module):
    """How the derivative of a run is computed."""

    @abc.abstractmethod
    def run(self, dynamics: Dynamics, state: PyTree) -> tuple[PyTree, PyTree]:
        """Runs all steps from `state`: the final state and the outputs stacked over the steps,
        differentiable with respect to every inexact array in `dynamics` and `state`."""


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

    def run(self, dynamics, state):
        return _run((dynamics, state), self)


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
    return (final, outputs), (tape, final, perturbed[0])


@_run.def_bwd
def _run_backward(residuals, cotangents, perturbed, inputs, adjoint):
    del perturbed  # traced here; the residuals hold it as Python booleans
    tape, final, wanted = residuals
    dynamics, _ = inputs
    return backward(adjoint, dynamics, wanted, tape, (final, cotangents))


def backward(
    adjoint: Recall, dynamics: Dynamics, wanted: PyTree, tape: PyTree, end: Any
) -> tuple[PyTree, PyTree]:
    """The backward pass: cotangents of the dynamics (where `wanted`) and of the initial state.

    `end` is the final state and the cotangents of (final state, stacked outputs); None stands
    for a zero cotangent.
    """
    final, (d_final, d_outputs) = end

    def body(carry, xs):
        tape, d_state, total = carry
        k, d_output = xs
        state, tape = adjoint.recall(dynamics, tape, k)
        pulled = dynamics.pullback(wanted, state, k, (d_state, d_output))
        return (tape, pulled.state, trees.add(total, pulled.share)), pulled.kept

    carry = tape, trees.zeros_where_none(final, d_final), dynamics.no_share(wanted)
    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    (_, d_state, total), kept = jax.lax.scan(body, carry, (ks, d_outputs), reverse=True)
    return dynamics.finish(wanted, total, kept, d_state)
