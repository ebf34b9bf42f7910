"""A hypergradient taken segment by segment: with progress, resumable, in bounded memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.core import Tracer
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad import placement, trees
from hindgrad.adjoints import Adjoint, Hypergradient
from hindgrad.arguments import as_key, as_whole, floats_and_rest
from hindgrad.objective import Objective
from hindgrad.segments.kept import InMemory, OnDisk
from hindgrad.segments.order import Order
from hindgrad.segments.run import SegmentedRun
from hindgrad.segments.work import Plan, carried_out
from hindgrad.streams.stream import Stream
from hindgrad.training import Training, as_adjoint

SEGMENTS = 20
"""How many, unless given."""
STREAMED = 2**26
"""Bytes of a stream that a segment may have, unless they are given."""


def hypergradient(
    objective: Callable[..., Any],
    hyper: PyTree,
    key: PRNGKeyArray | int | None = None,
    *,
    adjoint: Adjoint | None = None,
    segments: int | None = None,
    slots: int | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = None,
) -> Hypergradient:
    """The score of a long run and its hypergradient, segment by segment.

        found = hg.hypergradient(objective, hyper, adjoint=hg.Reversible(), checkpoint="run")

    The same as `jax.value_and_grad(objective)(hyper)`, up to the rounding of sums: forward through
    the segments, each end of which is kept, then back through them. With a `checkpoint` directory,
    a call that was killed goes on when it is made again, and ends with the same bits. Each program
    is compiled once (twice if the segments are not equally long).

    **Arguments:**

    - `objective`: an `Objective`.
    - `hyper`: the hyperparameters; the derivative is by their floats.
    - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
    - `adjoint`: `Reversible(…)`, through which no segment is run again, or `Checkpointed(…)`,
      `Stored()` or another of the reverse family, through which each is; `Checkpointed()` unless
      given.
    - `segments`: into how many the run is cut; all are equally long but the last, which may be
      shorter. Unless given 20, and of a stream so many that the batches of each are within 64 MiB:
      those of three segments are in the host's memory at a time, of one on the device.
    - `slots`: how many positions between segments to keep at a time, the first one included; the
      others are computed again, the fewest possible. All unless given.
    - `checkpoint`: a directory where they are kept; in the host's memory unless given.
    - `progress`: whether to show a line with the time left; unless given, on a terminal, and
      elsewhere every half minute.

    **Returns:**

    `Hypergradient(value, gradient)`; the gradient is like the floats in `hyper`.

    Raises `RuntimeError` if the run fails (as the adjoint's own errors say, at the step where it
    does), `ValueError` for another call's checkpoint or an adjoint without segments, `OSError` if
    there is less room on the disk than what is kept will take.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"hypergradient(objective={objective!r}): an hg.Objective is needed, whose run can be "
            "cut into segments. For any other function, use jax.value_and_grad."
        )
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((hyper, objective, key))):
        raise ValueError(
            "hypergradient runs programs one by one, and cannot itself be traced (by jax.jit, "
            "jax.grad or jax.vmap). Within another program, use jax.value_and_grad(objective)."
        )
    hyper = trees.as_hyper(hyper)
    floats_and_rest("hypergradient", hyper)
    run_key = as_key("hypergradient", 0 if key is None else key)
    adjoint = as_adjoint(adjoint)
    training = objective.training
    if not isinstance(training, Training):
        training = training(run_key)
    total = training.steps
    stream = training.batches if isinstance(training.batches, Stream) else None
    if stream is not None:
        stream.ahead.begin()
    count = _default_segments(total, stream) if segments is None else segments
    count = as_whole("hypergradient", "segments", count)
    if count > total:
        raise ValueError(
            f"hypergradient(segments={count}): the run has {total} steps, so at most {total}."
        )
    if slots is not None:
        slots = as_whole("hypergradient", "slots", slots)
    pieces = adjoint.pieces(total)
    if pieces is None:
        raise ValueError(
            f"{type(adjoint).__name__} has no way back in segments. Use Checkpointed(), Stored() "
            "or Reversible(), or jax.value_and_grad of the objective."
        )
    length = -(-total // count)
    run = SegmentedRun(objective, hyper, run_key, pieces)
    plan = Plan(run, stream, total, length, Order(-(-total // length), slots))
    call, mesh = lambda: plan.call(adjoint), placement.mesh_of((run, plan.begin))
    with InMemory() if checkpoint is None else OnDisk(checkpoint, call, mesh) as kept:
        return carried_out(plan, kept, progress)


def _default_segments(total, stream):
    least = SEGMENTS
    if stream is not None:
        least = max(least, -(-total * trees.nbytes(stream.ahead.reader.spec) // STREAMED))
    return min(total, least)
