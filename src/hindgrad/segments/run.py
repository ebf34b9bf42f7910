"""The programs of a run in segments: compiled once, for every segment."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints.base import Piece, Pieces
from hindgrad.gradient_training import GradientTraining
from hindgrad.objective import Objective, RunScore
from hindgrad.streams.stream import Steps
from hindgrad.sums import Compensated
from hindgrad.training import Run, as_scalar, dynamics_of


class Way(NamedTuple):
    """How far the way back has come."""

    value: Float[Array, ""]
    """The score."""
    of_state: PyTree
    """The cotangent of the state there."""
    of_losses: Float[Array, " steps"] | None
    """The cotangents of all losses; None if the score does not see them."""
    total: Compensated
    """The hypergradient so far."""
    position: PyTree = None
    """Where the run was there; None if that is kept elsewhere."""


class SegmentedRun(eqx.Module):
    """The run of an objective with one key, in pieces. A state is the arrays of (trained
    parameters, the optimizer's memory, the model's state)."""

    objective: Objective
    hyper: PyTree
    key: PRNGKeyArray
    pieces: Pieces
    batches: Steps | None = None
    """The segment's batches, where the training's are a stream."""

    def parts(self, hyper: PyTree) -> tuple[Any, PyTree, PyTree]:
        """The training; the start, arrays and others together; and what of the params is not
        trained."""
        training, params, model = self.objective.start(hyper, self.key)
        if self.batches is not None:
            training = eqx.tree_at(lambda t: t.batches, training, self.batches)
        trained, rest = trees.split_trained(params)
        coefficients = training.optimizer.coefficients(hyper, jnp.int32(0))
        memory = training.optimizer.init(trained, coefficients)
        return training, (trained, memory, trees.as_hyper(model)), rest

    def begin(self, hyper: PyTree) -> PyTree:
        """The state before the first step."""
        return eqx.filter(self.parts(hyper)[1], eqx.is_array)

    @property
    def like(self) -> PyTree:
        """The structs of a state."""
        return eqx.filter_eval_shape(self.begin, self.hyper)

    def dynamics(self, start: Int[Array, ""], steps: int) -> GradientTraining:
        """The steps of a segment."""
        training, (_, _, model), rest = self.parts(self.hyper)
        fixed = rest, eqx.filter(model, eqx.is_array, inverse=True)
        return dynamics_of(training, self.like, fixed, self.hyper, (start, steps))

    def score(self, hyper: PyTree, state: PyTree, losses: Any):
        """The score of the state at the end; by the losses, if it is one of the whole run."""
        training, begin, rest = self.parts(hyper)
        del training
        params, memory, model = eqx.combine(state, eqx.filter(begin, eqx.is_array, inverse=True))
        params = eqx.combine(params, rest)
        is_of_run = isinstance(self.objective.score, RunScore)
        seen = Run(params, memory, losses, model) if is_of_run else (params, model)
        return as_scalar("score", self.objective.returned(seen, hyper, self.key))


@programs.compiled
def begun(run: SegmentedRun, steps: int) -> PyTree:
    """The position before the first segment, which has so many steps."""
    return run.pieces.begin(run.dynamics(jnp.int32(0), steps), run.begin(run.hyper))


@programs.compiled
def advanced(
    run: SegmentedRun, start: Int[Array, ""], position: PyTree, steps: int, keep: bool
) -> Piece:
    """A segment, run from a position; with a tape if `keep`."""
    return run.pieces.forward(run.dynamics(start, steps), run.like, position, keep=keep)


@programs.compiled
def scored(
    run: SegmentedRun, position: PyTree, losses: Float[Array, " steps"] | None, steps: int
) -> Way:
    """The score at the end, where the way back begins; it sees the losses if they are given."""
    dynamics = run.dynamics(jnp.int32(0), steps)
    state = run.pieces.state(dynamics, run.like, position)
    score = lambda inputs: run.score(*inputs)
    value, found = eqx.filter_value_and_grad(score)((run.hyper, state, losses))
    of_hyper, of_state, of_losses = found
    zeros = jax.tree.map(jnp.zeros_like, of_hyper)
    return Way(value, of_state, of_losses, Compensated(of_hyper, zeros))


@programs.compiled
def pulled(
    run: SegmentedRun,
    start: Int[Array, ""],
    steps: int,
    ends: tuple[PyTree, Piece],
    way: Way,
) -> tuple[Way, PyTree]:
    """The way back through a segment, from its end to its start, and its fault; `ends` are the
    position before it, if that is known, and what it gave."""
    dynamics = run.dynamics(start, steps)
    wanted = jax.tree.map(lambda _: False, dynamics)
    floats = jax.tree.map(eqx.is_inexact_array, dynamics.hyper)
    wanted = eqx.tree_at(lambda d: d.hyper, wanted, floats)
    of_losses = way.of_losses
    if of_losses is not None:
        of_losses = jax.lax.dynamic_slice_in_dim(of_losses, start, steps)
    cotangents = way.of_state, of_losses
    back = run.pieces.backward(dynamics, wanted, run.like, ends, cotangents)
    share = eqx.filter(back.dynamics.hyper, eqx.is_inexact_array)
    total = way.total.plus(share)
    return way._replace(of_state=back.state, total=total, position=back.position), back.fault


@programs.compiled
def finished(run: SegmentedRun, way: Way) -> PyTree:
    """The hypergradient at the start, with the start's own share."""
    begin, pull = eqx.filter_vjp(run.begin, run.hyper)
    (share,) = pull(trees.zeros_where_none(begin, way.of_state))
    return way.total.plus(eqx.filter(share, eqx.is_inexact_array)).total
