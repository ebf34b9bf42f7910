"""A training run in exact arithmetic, forward and backward."""

import functools
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import numerics
from hindgrad.adjoints.recall import backward
from hindgrad.adjoints.reversible.failure import (
    FULL,
    NOT_FINITE,
    NOT_UNDONE,
    OVERFLOW,
    SMALL_DECAY,
    Status,
)
from hindgrad.adjoints.reversible.plan import Plan, Position
from hindgrad.adjoints.reversible.step import Step
from hindgrad.adjoints.scores import Scores
from hindgrad.exact import fixed_point
from hindgrad.gradient_training import GradientTraining


class Tape(NamedTuple):
    """What the way back needs."""

    position: Position
    """Where the run is."""
    schedule: PyTree
    """Coefficients and decays of all steps, as far as they are small."""
    pushed: PyTree
    """Whether the buffers pushed a digit, at each step."""
    losses: PyTree
    models: PyTree
    """What is kept of the model's state before each step."""
    begin: Position | None
    """Where it began: the very numbers, since a start computed again may be rounded otherwise;
    None where the end of the way back is compared by the caller."""


def begin(plan: Plan, state: PyTree) -> Position:
    """Where a run from that state begins."""
    (state,) = numerics.settled(state)
    return plan.begin(state)


def forward(
    plan: Plan, dynamics: GradientTraining, begin: Position, *, keep: bool
) -> tuple[Position, Tape, Status]:
    """Runs all steps: where the run is then, the tape, and what failed."""
    schedule = plan.decays.schedule(dynamics)
    position = plan.emptied(begin, keep=keep)

    def body(position, k):
        step, model = Step(plan, dynamics, schedule, k), position.model
        position, loss, pushed = step.forward(position)
        return position, (loss, pushed, plan.kept(model) if keep else None)

    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    position, (losses, pushed, models) = jax.lax.scan(body, position, ks)
    tape = Tape(position, schedule, pushed, losses, models, begin)
    return position, tape, _forward_status(plan, position)


def undo(
    scores: Scores,
    plan: Plan,
    dynamics: GradientTraining,
    wanted: PyTree,
    tape: Tape,
    cotangents: PyTree,
) -> tuple[PyTree, Position, Status]:
    """The way back: cotangents of the dynamics and of the initial state, where it ends, and what
    failed."""

    def back(position, k):
        step = Step(plan, dynamics, tape.schedule, k)
        pushed, model = jax.tree.map(lambda x: x[k], (tape.pushed, tape.models))
        position = position._replace(model=eqx.combine(model, tape.position.model))
        position, gradient, before = step.backward(position, wanted, pushed)
        with numerics.setting(plan.decays.x64):
            _, pull = dynamics.pulling(wanted, before, k, gradient, step.update)
        return in_users_setting(pull), position

    def in_users_setting(function):
        def called(*args):
            with numerics.setting(plan.decays.x64):
                return function(*args)

        return called

    end = plan.decode(tape.position), cotangents
    pulled, position, differs = backward(
        scores, back, dynamics, wanted, tape.position, end, tape.losses
    )
    results = scores.finish(in_users_setting(partial(dynamics.finish, wanted)), pulled)
    status = _backward_status(plan, position, tape.begin, jnp.maximum(differs, 0))
    return results, position, status


def _forward_status(plan, position):
    failures, layout = [], plan.layout
    for group, _, (small, full) in plan.each_buffer(position):
        leaf = layout.groups[group][0]
        failures += [(SMALL_DECAY, leaf, small >= 0, small), (FULL, leaf, full >= 0, full)]
    for group, fixed in enumerate(position.state.arrays):
        step, is_nan, elements = fixed_point.stuck_at(fixed)
        leaf, failed = layout.first(group, elements), jnp.isfinite(step)
        step = jnp.where(failed, step, 0)
        failures += [
            (NOT_FINITE, leaf, failed & is_nan, step),
            (OVERFLOW, leaf, failed & ~is_nan, step),
        ]
    return Status.of(failures)


def _backward_status(plan, position, begin, step):
    failures, layout = [], plan.layout
    if begin is not None:
        pairs = zip(position.state.arrays, begin.state.arrays, strict=True)
        for group, (came, went) in enumerate(pairs):
            digits = zip(jax.tree.leaves(came), jax.tree.leaves(went), strict=True)
            other = functools.reduce(jnp.logical_or, (x != y for x, y in digits))
            failures.append((NOT_UNDONE, layout.first(group, other), jnp.any(other), step))
    for group, b, _ in plan.each_buffer(position):
        left = (b.word != 0) | (b.count != 0)
        failures.append((NOT_UNDONE, layout.first(group, left), jnp.any(left), step))
    return Status.of(failures)
