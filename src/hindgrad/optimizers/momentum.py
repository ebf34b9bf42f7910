"""Gradient descent with momentum, in the conventions in use."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from hindgrad.optimizers.base import Coefficient, Optimizer, check_number, evaluate, spread
from hindgrad.optimizers.weight_decay import Decoupled, WeightDecay, apply_weight_decay


class Convention(eqx.Module):
    """One way of writing momentum: velocity v, gradient g, rate α, decay m (all per element)."""

    @abc.abstractmethod
    def move(self, params: Array, velocity: Array, rate: Array, decay: Array) -> Array:
        """Where the gradient is taken."""

    @abc.abstractmethod
    def velocity(self, velocity: Array, grads: Array, decay: Array) -> Array:
        """The velocity after the step."""

    @abc.abstractmethod
    def step(self, velocity: Array, grads: Array, rate: Array, decay: Array) -> Array:
        """What is added to the parameters; `velocity` is the one after the step."""


class Damped(Convention):
    """`v ← m v − (1 − m) g; θ ← θ + α v` (Maclaurin, Duvenaud & Adams 2015, Alg. 1, with the
    velocity after the step in the parameters' update)."""

    def move(self, params, velocity, rate, decay):
        del velocity, rate, decay
        return params

    def velocity(self, velocity, grads, decay):
        return decay * velocity - (1 - decay) * grads

    def step(self, velocity, grads, rate, decay):
        del grads, decay
        return rate * velocity


class PositionFirst(Convention):
    """`θ ← θ + α v; v ← m v − g(θ)`: the gradient is taken at the new position."""

    def move(self, params, velocity, rate, decay):
        del decay
        return params + rate * velocity

    def velocity(self, velocity, grads, decay):
        return decay * velocity - grads

    def step(self, velocity, grads, rate, decay):
        del grads, rate, decay
        return jnp.zeros_like(velocity)


class HeavyBall(Convention):
    """`v ← m v + g; θ ← θ − α v` (Polyak 1964), as the usual libraries have it."""

    def move(self, params, velocity, rate, decay):
        del velocity, rate, decay
        return params

    def velocity(self, velocity, grads, decay):
        return decay * velocity + grads

    def step(self, velocity, grads, rate, decay):
        del grads, decay
        return -rate * velocity


class Nesterov(Convention):
    """`v ← m v + g; θ ← θ − α (g + m v)` (Nesterov 1983), as the usual libraries have it."""

    def move(self, params, velocity, rate, decay):
        del velocity, rate, decay
        return params

    def velocity(self, velocity, grads, decay):
        return decay * velocity + grads

    def step(self, velocity, grads, rate, decay):
        return -rate * (grads + decay * velocity)


class Momentum(Optimizer):
    """Gradient descent with momentum.

    The default convention, `Damped`, averages the gradients; the usual libraries' is `HeavyBall`,
    which sums them: for the same steps there, a rate that is (1 − decay) times as large.

    **Arguments:**

    - `rate`: the learning rate α, in units of parameter per unit of velocity.
    - `decay`: the share m of the velocity kept at each step, in [0, 1).
    - `weight_decay`: `Coupled(…)`, `Decoupled(…)` or None.
    - `convention`: `Damped()`, `PositionFirst()`, `HeavyBall()` or `Nesterov()`.

    Rate, decay and the strength of weight decay are each a number, a pytree of numbers that is a
    prefix of the parameters', or a function `(hyper, t)` that returns one of these.
    """

    rate: Coefficient
    decay: Coefficient = 0.9
    weight_decay: WeightDecay | None = eqx.field(default=None, kw_only=True)
    convention: Convention = eqx.field(default=Damped(), kw_only=True)

    def __check_init__(self):
        check_number("Momentum(rate)", self.rate, 0.0, float("inf"))
        check_number("Momentum(decay)", self.decay, 0.0, 1.0)
        if isinstance(self.convention, PositionFirst) and isinstance(self.weight_decay, Decoupled):
            raise ValueError(
                "Momentum(convention=PositionFirst()) moves before the gradient is taken, so a "
                "Decoupled weight decay has no place in its step. Use Coupled, or Damped()."
            )

    def coefficients(self, hyper, t):
        values = {
            "rate": evaluate(self.rate, hyper, t),
            "decay": evaluate(self.decay, hyper, t),
        }
        if self.weight_decay is not None:
            values["weight_decay"] = evaluate(self.weight_decay.strength, hyper, t)
        return values

    def init(self, params, coefficients):
        del coefficients
        return jax.tree.map(jnp.zeros_like, params)

    def move(self, params, memory, coefficients):
        rate = spread("rate", coefficients["rate"], params)
        decay = spread("decay", coefficients["decay"], params)
        return jax.tree.map(self.convention.move, params, memory, rate, decay)

    def update(self, grads, memory, params, coefficients):
        rate = spread("rate", coefficients["rate"], params)
        decay = spread("decay", coefficients["decay"], params)
        grads, shrunk = apply_weight_decay(self.weight_decay, grads, params, rate, coefficients)
        velocity = jax.tree.map(self.convention.velocity, memory, grads, decay)
        step = jax.tree.map(self.convention.step, velocity, grads, rate, decay)
        return jax.tree.map(jnp.add, shrunk, step), velocity
