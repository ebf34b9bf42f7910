"""The reverse family, and the one backward pass that its members share."""

import abc
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from hindgrad import trees
from hindgrad.adjoints import purity
from hindgrad.adjoints.base import Adjoint, Piece, Pieces, PulledPiece, forward
from hindgrad.adjoints.scores import OneScore, Scores, batched_together, side_by_side
from hindgrad.dynamics import Dynamics, Pulled
from hindgrad.sums import Compensated


class Recall(Adjoint):
    """The reverse family: goes back through the run, and asks for its past states.

    A member says what it keeps on the way forward (`record`) and how it gets a state back from
    that (`recall`); the backward pass is here, once for all.
    """

    @abc.abstractmethod
    def record(
        self, dynamics: Dynamics, state: PyTree, wanted: PyTree
    ) -> tuple[PyTree, PyTree, PyTree]:
        """Runs all steps: the final state, the stacked outputs, and the tape. `wanted` is True at
        the leaves of the dynamics whose cotangents are asked for."""

    @abc.abstractmethod
    def recall(self, dynamics: Dynamics, tape: PyTree, k: Int[Array, ""]) -> tuple[PyTree, PyTree]:
        """The state before step `k`, and the tape from which the one before `k − 1` is recalled.

        Called for k = steps − 1, …, 0 in this order.
        """

    def pullback(
        self,
        dynamics: Dynamics,
        wanted: PyTree,
        tape: PyTree,
        k: Int[Array, ""],
        *,
        sees_outputs: bool,
    ) -> tuple[Callable[[PyTree], Pulled], PyTree]:
        """The pullback of step `k`, from the state before it, and the tape for the step before;
        `sees_outputs` unless the cotangents of all outputs are None."""
        del sees_outputs
        state, tape = self.recall(dynamics, tape, k)
        return dynamics.pullback(wanted, state, k), tape

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

    def pieces(self, total: int) -> Pieces | None:
        del total
        return Replayed(self)


class Replayed(Pieces):
    """Pieces that are run once more on the way back, by an adjoint of single runs."""

    replays: ClassVar[bool] = True

    adjoint: Adjoint

    def begin(self, dynamics, state):
        del dynamics
        return state

    def state(self, dynamics, like, position):
        del dynamics, like
        return position

    def forward(self, dynamics, like, position, *, keep):
        del like, keep
        position, losses = forward(dynamics, position)
        return Piece(position, losses, None, None)

    def backward(self, dynamics, wanted, like, ends, cotangents):
        del like
        before, piece = ends
        sources, rest = eqx.partition(dynamics, wanted)

        def run(sources, state):
            return self.adjoint.run(eqx.combine(sources, rest), state)

        (after, losses), pull = eqx.filter_vjp(run, sources, before)
        pulled = pull(trees.zeros_where_none((after, losses), cotangents))
        floor, ks = purity.floor(losses), jnp.arange(dynamics.steps, dtype=jnp.int32)
        others = purity.is_other(piece.losses, losses, floor)
        last = jnp.max(jnp.where(others, dynamics.start + ks, -1))
        of_dynamics, of_state = purity.checked(pulled, last)
        return PulledPiece(of_dynamics, of_state, None, None)


@eqx.filter_custom_vjp
def _run(inputs: tuple[Dynamics, PyTree], adjoint: Recall) -> tuple[PyTree, PyTree]:
    del adjoint
    return forward(*inputs)


@_run.def_fwd
def _run_forward(perturbed, inputs, adjoint):
    final, outputs, tape = adjoint.record(*inputs, perturbed[0])
    return (final, outputs), (tape, final, inputs[0].losses(outputs), perturbed[0])


@_run.def_bwd
def _run_backward(residuals, cotangents, perturbed, inputs, adjoint):
    del perturbed  # traced here; the residuals hold it as Python booleans
    tape, final, losses, wanted = residuals
    return _once(inputs, cotangents, (tape, final, losses), adjoint=adjoint, wanted=wanted)


def _pulled_back(scores, adjoint, wanted, given, cotangents):
    """The cotangents of the inputs."""
    (dynamics, _), (tape, final, losses) = given
    if losses is not None:
        ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
        losses = jnp.where(adjoint.is_exact(ks), losses, jnp.nan)

    sees_outputs = bool(jax.tree.leaves(cotangents[1]))

    def back(tape, k):
        return adjoint.pullback(dynamics, wanted, tape, k, sees_outputs=sees_outputs)

    end = final, cotangents
    pulled, _, differs = backward(scores, back, dynamics, wanted, tape, end, losses)
    results = scores.finish(partial(dynamics.finish, wanted), pulled)
    differs = jnp.where(differs < 0, differs, dynamics.start + differs)
    return purity.checked(results, differs)


@eqx.filter_custom_jvp
def _once(inputs, cotangents, recorded, *, adjoint, wanted):
    """The cotangents of the inputs, for many scores at once under `vmap`."""
    return side_by_side(
        lambda scores, *args: _pulled_back(scores, adjoint, wanted, *args),
        inputs[1],
        (inputs, recorded),
        cotangents,
    )


@_once.def_jvp
def _once_jvp(primals, tangents, *, adjoint, wanted):
    """Where the adjoint's own way back has no derivative: another's, which records anew."""
    other = adjoint.differentiable()

    def again(inputs, cotangents, recorded):
        if other is not adjoint:
            final, outputs, tape = other.record(*inputs, wanted)
            recorded = tape, final, inputs[0].losses(outputs)
        results = _pulled_back(OneScore(), other, wanted, (inputs, recorded), cotangents)
        return batched_together(results, (inputs, cotangents, recorded))

    return eqx.filter_jvp(again, primals, tangents)


def backward(
    scores: Scores,
    back: Callable[[PyTree, Int[Array, ""]], tuple[Callable[[PyTree], Pulled], PyTree]],
    dynamics: Dynamics,
    wanted: PyTree,
    tape: PyTree,
    end: Any,
    losses: Float[Array, " steps"] | None,
) -> tuple[Pulled, PyTree, Int[Array, ""]]:
    """The backward pass: the steps' pullbacks in sum, for `Dynamics.finish`, the tape's end, and
    the last step whose loss was another than in `losses`, −1 if there is none.

    `back(tape, k)` gives the pullback of step k, for k = steps − 1, …, 0. `end` is the final state
    and the cotangents of (final state, stacked outputs), as `scores` have them; None stands for a
    zero cotangent. `wanted` is True at the leaves of the dynamics whose cotangents are asked for.
    """
    final, (d_final, d_outputs) = end
    floor = purity.floor(losses)

    def body(carry, xs):
        tape, d_state, total, differs = carry
        k, d_output, loss = xs
        pull, tape = back(tape, k)
        d_state, total, kept, again = scores.pull(pull, d_state, d_output, total)
        if losses is not None:
            other = purity.is_other(loss, again, floor)
            differs = jnp.where(other & (differs < 0), k, differs)
        return (tape, d_state, total, differs), kept

    zeros = scores.zeros_where_none(final, d_final)
    total = Compensated.of(scores.stacked(dynamics.no_share(wanted)))
    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    carry, rows = (tape, zeros, total, jnp.int32(-1)), (ks, scores.by_step(d_outputs), losses)
    (tape, d_state, share, differs), kept = jax.lax.scan(body, carry, rows, reverse=True)
    return Pulled(d_state, share.total, kept), tape, differs
