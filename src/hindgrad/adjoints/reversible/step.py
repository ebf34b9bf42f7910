"""One training step in exact arithmetic, and its inverse."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from hindgrad import numerics
from hindgrad.adjoints.reversible.decays import MARGIN, Now, Schedule
from hindgrad.adjoints.reversible.plan import Plan, Position
from hindgrad.anchors import anchored
from hindgrad.exact import buffer, decay, fixed_point
from hindgrad.gradient_training import Gradient, GradientTraining, value_and_grad_as_pulled
from hindgrad.optimizers.moves import Moves, Scale, State, is_decay
from hindgrad.reproducible import reproducible

Pushed = tuple[tuple[Bool[Array, ""], ...], ...]
"""Whether a digit was pushed: for each move, in each group; none for an addition."""


class Step:
    """Step `k` of an exact run."""

    def __init__(self, plan: Plan, dynamics: GradientTraining, schedule: Schedule, k: Any):
        self.plan, self.dynamics = plan, dynamics
        k = anchored(k)
        self.k, self.t = k, dynamics.start + k
        self.now: Now = plan.decays.at(dynamics, schedule, k)
        asked = _computed_once(self.now.decays)
        applied = jax.tree.map(_applied, asked, self.now.bits, is_leaf=is_decay)
        like, coefficients = plan.decays.like, self.now.coefficients
        self.optimizer: Any = dynamics.optimizer.moving
        self.moves: Moves = self.optimizer.moves(like, coefficients, applied)
        every = [move for phase in self.moves for move in phase]
        self.number = {id(move): i for i, move in enumerate(every)}

    def forward(self, position: Position) -> tuple[Position, Float[Array, ""], Pushed]:
        """The position after the step, the loss, and what was pushed."""
        pushed = {}
        position = self._do(self.moves.before, position, None, pushed)
        params, t, model = self._point(position)
        with numerics.setting(self.plan.decays.x64):
            (loss, model), grads = self._value_and_grad(params, t, model)
        position = position._replace(model=model)
        position = self._do(self.moves.absorb, position, self._clipped(grads), pushed)
        position = self._do(self.moves.after, position, None, pushed)
        return position, loss, tuple(pushed[i] for i in sorted(pushed))

    def backward(
        self, position: Position, wanted: PyTree, pushed: Pushed
    ) -> tuple[Position, Gradient, PyTree]:
        """The position before the step, the gradient it took, and the state before."""
        position = self._undo(self.moves.after, position, None, pushed)
        params, t, model = self._point(position)
        with numerics.setting(self.plan.decays.x64):
            at = params, model
            gradient = self.dynamics.gradient(wanted, at, t, reproducible)
        grads, *others = gradient.values
        (grads,) = numerics.isolate(grads)
        gradient = gradient._replace(values=(grads, *others))
        position = self._undo(self.moves.absorb, position, self._clipped(grads), pushed)
        position = self._undo(self.moves.before, position, None, pushed)
        return position, gradient, self.plan.decode(position)

    def update(self, dynamics: Any, grads: PyTree, memory: PyTree, params: PyTree, now: PyTree):
        """The optimizer's step from coefficients `now`, by the decays that are really applied."""
        moving = dynamics.optimizer.moving
        decays = moving.decays(params, now)
        decays = jax.tree.map(_applied, decays, self.now.bits, is_leaf=is_decay)
        return moving.update_with(decays, grads, memory, params, now)

    def _point(self, position):
        """Where the gradient is taken: parameters, step and the model's state."""
        return numerics.isolate(self.plan.decode_params(position), self.t, position.model)

    def _value_and_grad(self, params, t, model):
        dynamics = self.dynamics
        loss = lambda params, model: dynamics.loss(
            params, dynamics.hyper, dynamics.batches(t), model
        )
        return reproducible(value_and_grad_as_pulled(loss, model), params, model)

    def _clipped(self, grads):
        """The gradient in float64, clipped."""
        (grads,) = numerics.isolate(_widened(grads))
        clipped = lambda grads: self.optimizer.clipped(grads, self.now.coefficients)
        return numerics.isolate(reproducible(clipped, grads))[0]

    def _do(self, moves, position, grads, pushed):
        for move in moves:
            i = self.number[id(move)]
            if isinstance(move, Scale):
                position, pushed[i] = self._multiply(i, position)
            else:
                add = lambda x, delta: fixed_point.add(x, delta, self.k)
                position = self._shift(move, i, position, grads, add)
                pushed[i] = ()
        return position

    def _undo(self, moves, position, grads, pushed):
        for move in reversed(moves):
            i = self.number[id(move)]
            if isinstance(move, Scale):
                position = self._divide(i, position, pushed[i])
            else:
                position = self._shift(move, i, position, grads, fixed_point.subtract)
        return position

    def _shift(self, move, i, position, grads, shift):
        change, state = self.plan.changes[i], position.state
        (view,) = numerics.isolate(self._view(position))
        delta = reproducible(move.delta, view, grads)
        (delta,) = numerics.isolate(delta)
        leaves = dict(zip(change.leaves, jax.tree.leaves(delta), strict=True))
        deltas = [self.plan.join(group, leaves) for group in change.groups]
        new = [shift(state.arrays[g], x) for g, x in zip(change.groups, deltas, strict=True)]
        return position._replace(state=state.with_arrays(change.groups, new))

    def _view(self, position):
        """The state in float64: the parameters rounded as the model sees them, which makes
        products of two float32 numbers exact, the memory not."""
        return State(_widened(self.plan.decode_params(position)), self.plan.exact(position).memory)

    def _multiply(self, i, position):
        old, bits = self._scaled(i, position)
        done = map(buffer.multiply, old, position.buffers[i], bits)
        new, buffers, pushed = zip(*done, strict=True)
        position = self._with(position, i, new, buffers)
        return self._with_faults(i, position), pushed

    def _divide(self, i, position, pushed):
        old, bits = self._scaled(i, position)
        done = map(buffer.divide_back, old, position.buffers[i], bits, pushed)
        new, buffers = zip(*done, strict=True)
        return self._with(position, i, new, buffers)

    def _scaled(self, i, position):
        """What a multiplication changes, and the quanta that each of it loses."""
        change = self.plan.changes[i]
        bits = jax.tree.leaves(self.now.bits[change.lanes.decay])
        arrays = [position.state.arrays[group] for group in change.groups]
        return arrays, [bits[part] for part in change.lanes.parts]

    def _with(self, position, i, arrays, buffers):
        state = position.state.with_arrays(self.plan.changes[i].groups, arrays)
        before, after = position.buffers[:i], position.buffers[i + 1 :]
        return position._replace(state=state, buffers=(*before, buffers, *after))

    def _with_faults(self, i, position):
        """Notes decays that are too small, and buffers that are too full."""
        lanes = self.plan.changes[i].lanes
        if lanes.decay in self.plan.decays.constant:
            return position
        asked = jax.tree.leaves(self.now.decays[lanes.decay], is_leaf=is_decay)
        noted = []
        for part, rows, old, b in zip(
            lanes.parts, lanes.rows, position.faults[i], position.buffers[i], strict=True
        ):
            kept = asked[part].kept
            fine = (kept >= lanes.least - MARGIN) & (kept <= 1)
            wrong = jnp.stack([~jnp.all(fine), b.count > rows])
            noted.append(jnp.where(wrong & (old < 0), self.k, old))
        faults = (*position.faults[:i], tuple(noted), *position.faults[i + 1 :])
        return position._replace(faults=faults)


def _applied(d, bits):
    with numerics.wide():
        return d.replaced(*_computed_once((decay.kept(bits), decay.lost(bits))))


def _computed_once(tree):
    """Arrays as they are, whatever a compiler merges them with: it may, and rounds otherwise then.
    (Single numbers it does not.)"""
    arrays, others = eqx.partition(tree, lambda x: eqx.is_inexact_array(x) and x.ndim > 0)
    return eqx.combine(numerics.settled(arrays)[0], others) if jax.tree.leaves(arrays) else tree


def _widened(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float64), tree)
