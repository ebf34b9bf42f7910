"""Adam and AdamW, with a derivative that exists wherever the update does."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hindgrad.optimizers.base import Coefficient, Optimizer, check_number, evaluate, spread
from hindgrad.optimizers.weight_decay import WeightDecay, apply_weight_decay


class AdamMemory(NamedTuple):
    """Adam's moments, and the total weight that each of them has given to gradients so far."""

    mean: PyTree
    square: PyTree
    mean_weight: PyTree
    square_weight: PyTree


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015, Alg. 1); with `weight_decay=Decoupled(…)`, AdamW.

    The bias correction divides each moment by the sum of the weights really given, 1 − Π b_t, so
    b1 and b2 may change from step to step. At a coordinate whose gradients have all been exactly
    zero, the update's derivative is that through the first moment, 1/eps times its weight: the
    true one. (Written with a plain square root it is NaN.)

    **Arguments:**

    - `rate`: the learning rate, in units of parameter.
    - `b1`, `b2`: the decays of the first and second moment, in [0, 1).
    - `eps`: added to the root of the second moment, in units of gradient (above 0).
    - `weight_decay`: `Coupled(…)`, `Decoupled(…)` or None.

    All but `eps` may be a number, a pytree of numbers that is a prefix of the parameters', or a
    function `(hyper, t)` that returns one of these.
    """

    rate: Coefficient
    b1: Coefficient = 0.9
    b2: Coefficient = 0.999
    eps: float = 1e-8
    weight_decay: WeightDecay | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        check_number("Adam(rate)", self.rate, 0.0, float("inf"))
        check_number("Adam(b1)", self.b1, 0.0, 1.0)
        check_number("Adam(b2)", self.b2, 0.0, 1.0)
        if not self.eps > 0:
            raise ValueError(f"Adam(eps={self.eps!r}): a number above 0 is needed.")

    def coefficients(self, hyper, t):
        values = {name: evaluate(getattr(self, name), hyper, t) for name in ("rate", "b1", "b2")}
        if self.weight_decay is not None:
            values["weight_decay"] = evaluate(self.weight_decay.strength, hyper, t)
        return values

    def init(self, params, coefficients):
        zeros = jax.tree.map(jnp.zeros_like, params)
        weights = (
            jax.tree.map(jnp.zeros_like, spread(name, coefficients[name], params))
            for name in ("b1", "b2")
        )
        return AdamMemory(zeros, zeros, *weights)

    def move(self, params, memory, coefficients):
        del memory, coefficients
        return params

    def update(self, grads, memory, params, coefficients):
        rate, b1, b2 = (spread(n, coefficients[n], params) for n in ("rate", "b1", "b2"))
        grads, shrunk = apply_weight_decay(self.weight_decay, grads, params, rate, coefficients)
        average = lambda m, g, b: b * m + (1 - b) * g
        mean = jax.tree.map(average, memory.mean, grads, b1)
        square = jax.tree.map(lambda s, g, b: average(s, g * g, b), memory.square, grads, b2)
        mean_weight = jax.tree.map(lambda w, b: average(w, 1.0, b), memory.mean_weight, b1)
        square_weight = jax.tree.map(lambda w, b: average(w, 1.0, b), memory.square_weight, b2)

        def step(p, a, m, s, wm, ws):
            return p - a * (m / wm) / (_sqrt(s / ws) + self.eps)

        params = jax.tree.map(step, shrunk, rate, mean, square, mean_weight, square_weight)
        return params, AdamMemory(mean, square, mean_weight, square_weight)


def _sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, with derivative 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
