"""Gradient descent with momentum, in the conventions in use."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hindgrad import trees
from hindgrad.optimizers.base import (
    ANY,
    DECAY,
    Coefficient,
    as_prefix,
    check_number,
    evaluate,
    numbers,
    spread,
    times,
    zeros_for,
)
from hindgrad.optimizers.clipping import Clip, as_clip, clipped
from hindgrad.optimizers.moves import Add, Keep, Moves, MovingOptimizer, Scale
from hindgrad.optimizers.weight_decay import Decoupled, WeightDecay, shrinking


class Convention(eqx.Module):
    """One way of writing momentum: velocity v, gradient g, rate α, decay m (all per element)."""

    @abc.abstractmethod
    def moves(self, rate: PyTree, decay: PyTree, grads: PyTree) -> Moves:
        """The step; `grads` are functions `(state, gradient) -> pytree` whose sum is g."""

    @property
    def irreversible(self) -> str | None:
        """Why the step cannot be undone; None if it can."""
        return None

    @property
    def sign(self) -> int:
        """1 if the velocity points along the step, −1 if along the gradient."""
        return 1

    def velocity_along(self, stride: Array, rate: Array) -> Array:
        """The velocity that moves the parameters by `stride`."""
        return stride / jnp.where(rate == 0, jnp.inf, self.sign * rate)


def _params(state):
    return state.params


def _velocity(state):
    return state.memory


def _absorb(weights, grads):
    """`v ← m v + Σ weight · g`."""
    weighted = lambda grad: lambda s, g: times(weights, grad(s, g))
    return [Scale(_velocity, "decay"), *(Add(_velocity, weighted(grad)) for grad in grads)]


class Damped(Convention):
    """`v ← m v − (1 − m) g; θ ← θ + α v` (Maclaurin, Duvenaud & Adams 2015, Alg. 1, with the
    velocity after the step in the parameters' update)."""

    def moves(self, rate, decay, grads):
        weights = jax.tree.map(lambda m: -m.lost, decay, is_leaf=_is_keep)
        step = lambda s, _: times(rate, s.memory)
        return Moves(absorb=_absorb(weights, grads), after=[Add(_params, step)])


class PositionFirst(Convention):
    """`θ ← θ + α v; v ← m v − g(θ)`: the gradient is taken at the new position."""

    def moves(self, rate, decay, grads):
        weights = jax.tree.map(lambda m: -jnp.ones_like(m.kept), decay, is_leaf=_is_keep)
        step = lambda s, _: times(rate, s.memory)
        return Moves(before=[Add(_params, step)], absorb=_absorb(weights, grads))


class HeavyBall(Convention):
    """`v ← m v + g; θ ← θ − α v` (Polyak 1964), as the usual libraries have it."""

    @property
    def sign(self):
        return -1

    def moves(self, rate, decay, grads):
        weights = jax.tree.map(lambda m: jnp.ones_like(m.kept), decay, is_leaf=_is_keep)
        step = lambda s, _: times(jax.tree.map(jnp.negative, rate), s.memory)
        return Moves(absorb=_absorb(weights, grads), after=[Add(_params, step)])


class Nesterov(Convention):
    """`v ← m v + g; θ ← θ − α (g + m v)` (Nesterov 1983), as the usual libraries have it."""

    @property
    def sign(self):
        return -1

    def moves(self, rate, decay, grads):
        weights = jax.tree.map(lambda m: jnp.ones_like(m.kept), decay, is_leaf=_is_keep)

        def step(state, gradient):
            total = trees.add(*(grad(state, gradient) for grad in grads))
            kept = jax.tree.map(lambda m: m.kept, decay, is_leaf=_is_keep)
            ahead = trees.add(total, times(kept, state.memory))
            return times(jax.tree.map(jnp.negative, rate), ahead)

        return Moves(absorb=_absorb(weights, grads), after=[Add(_params, step)])

    @property
    def irreversible(self):
        return (
            "Nesterov's step adds a multiple of the gradient to the parameters at which it was "
            "taken, so that undoing it means solving an equation"
        )


def _is_keep(x):
    return isinstance(x, Keep)


class Momentum(MovingOptimizer):
    """Gradient descent with momentum.

    The default convention, `Damped`, averages the gradients; the usual libraries' is `HeavyBall`,
    which sums them: for the same steps there, a rate that is (1 − decay) times as large.

    **Arguments:**

    - `rate`: the learning rate α, in units of parameter per unit of velocity.
    - `decay`: the share m of the velocity kept at each step, in [0, 1).
    - `weight_decay`: `Coupled(…)`, `Decoupled(…)` or None.
    - `clip`: `ClipByGlobalNorm(…)`, `ClipByValue(…)` or None.
    - `convention`: `Damped()`, `PositionFirst()`, `HeavyBall()` or `Nesterov()`.

    Rate, decay and the strength of weight decay are each a number, a pytree of numbers that is a
    prefix of the parameters', or a function `(hyper, t)` that returns one of these.
    """

    rate: Coefficient
    decay: Coefficient = 0.9
    weight_decay: WeightDecay | None = eqx.field(default=None, kw_only=True)
    clip: Clip | None = eqx.field(default=None, kw_only=True, converter=as_clip("Momentum"))
    convention: Convention = eqx.field(default=Damped(), kw_only=True)

    def __check_init__(self):
        for name in ("rate", "decay"):
            check_number(f"Momentum({name})", getattr(self, name), *self.ranges[name])
        if isinstance(self.convention, PositionFirst) and isinstance(self.weight_decay, Decoupled):
            raise ValueError(
                "Momentum(convention=PositionFirst()) moves before the gradient is taken, so a "
                "Decoupled weight decay has no place in its step. Use Coupled, or Damped()."
            )

    @property
    def ranges(self):
        return {"rate": ANY, "decay": DECAY, "weight_decay": ANY, "clip": ANY}

    def coefficients(self, hyper, t):
        return {name: evaluate(value, hyper, t) for name, value in self._given().items()}

    def constants(self):
        return numbers(self._given())

    def _given(self):
        given = {"rate": self.rate, "decay": self.decay}
        if self.weight_decay is not None:
            given["weight_decay"] = self.weight_decay.strength
        if self.clip is not None:
            given["clip"] = self.clip.limit
        return given

    def clipped(self, grads, coefficients):
        return clipped(self.clip, grads, coefficients)

    def init(self, params, coefficients):
        del coefficients
        return zeros_for(params)

    def decays(self, params, coefficients):
        decay = as_prefix("decay", coefficients["decay"], params)
        decays = {"decay": jax.tree.map(Keep, decay)}
        return decays | shrinking(self.weight_decay, params, coefficients)

    def moves(self, params, coefficients, decays):
        rate = as_prefix("rate", coefficients["rate"], params)
        grads = [lambda _, gradient: gradient]
        if self.weight_decay is not None:
            grads += self.weight_decay.gradients(params, coefficients)
        moves = self.convention.moves(rate, decays["decay"], grads)
        if "weight_decay" in decays:
            shrink = Scale(_params, "weight_decay")
            moves = moves._replace(after=[shrink, *moves.after])
        return moves

    @property
    def irreversible(self):
        return self.convention.irreversible

    def memory_along(self, stride, coefficients):
        rate = spread("rate", coefficients["rate"], stride)
        return jax.tree.map(self.convention.velocity_along, stride, rate)
