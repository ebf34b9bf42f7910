"""Adam and AdamW, with a derivative that exists wherever the update does."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

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
from hindgrad.optimizers.moves import Add, Keep, Moves, MovingOptimizer, Scale, is_decay
from hindgrad.optimizers.weight_decay import WeightDecay, shrinking


class AdamMemory(NamedTuple):
    """Adam's moments, like the parameters; and the total weight that each of them has given to
    gradients so far, like the decay that it comes from: a number, unless that is a pytree."""

    mean: PyTree
    square: PyTree
    mean_weight: PyTree
    square_weight: PyTree


class Adam(MovingOptimizer):
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
    - `clip`: `ClipByGlobalNorm(…)`, `ClipByValue(…)` or None.

    All but `eps` may be a number, a pytree of numbers that is a prefix of the parameters', or a
    function `(hyper, t)` that returns one of these.
    """

    rate: Coefficient
    b1: Coefficient = 0.9
    b2: Coefficient = 0.999
    eps: float = 1e-8
    weight_decay: WeightDecay | None = eqx.field(default=None, kw_only=True)
    clip: Clip | None = eqx.field(default=None, kw_only=True, converter=as_clip("Adam"))

    def __check_init__(self):
        for name in ("rate", "b1", "b2"):
            check_number(f"Adam({name})", getattr(self, name), *self.ranges[name])
        if not self.eps > 0:
            raise ValueError(f"Adam(eps={self.eps!r}): a number above 0 is needed.")

    @property
    def ranges(self):
        return {"rate": ANY, "b1": DECAY, "b2": DECAY, "weight_decay": ANY, "clip": ANY}

    def coefficients(self, hyper, t):
        return {name: evaluate(value, hyper, t) for name, value in self._given().items()}

    def constants(self):
        return numbers(self._given())

    def _given(self):
        given = {"rate": self.rate, "b1": self.b1, "b2": self.b2}
        if self.weight_decay is not None:
            given["weight_decay"] = self.weight_decay.strength
        if self.clip is not None:
            given["clip"] = self.clip.limit
        return given

    def clipped(self, grads, coefficients):
        return clipped(self.clip, grads, coefficients)

    def init(self, params, coefficients):
        zeros = zeros_for(params)
        weights = (
            jax.tree.map(jnp.zeros_like, as_prefix(name, coefficients[name], params))
            for name in ("b1", "b2")
        )
        return AdamMemory(zeros, jax.tree.map(jnp.real, zeros), *weights)

    def decays(self, params, coefficients):
        decays = {
            name: jax.tree.map(Keep, as_prefix(name, coefficients[name], params))
            for name in ("b1", "b2")
        }
        return decays | shrinking(self.weight_decay, params, coefficients)

    def moves(self, params, coefficients, decays):
        rate = spread("rate", coefficients["rate"], params)
        lost = {
            name: jax.tree.map(lambda b: b.lost, decays[name], is_leaf=is_decay)
            for name in ("b1", "b2")
        }
        grads = [lambda _, gradient: gradient]
        if self.weight_decay is not None:
            grads += self.weight_decay.gradients(params, coefficients)

        def square(state, gradient):
            total = trees.add(*(grad(state, gradient) for grad in grads))
            return times(lost["b2"], jax.tree.map(lambda g: jnp.real(g * jnp.conj(g)), total))

        def step(state, gradient):
            del gradient
            mean, square, *weights = state.memory
            return jax.tree.map(
                lambda a, m, s, wm, ws: -a * (m / wm) / (_sqrt(s / ws) + self.eps),
                rate,
                mean,
                square,
                *(jax.tree.broadcast(weight, mean) for weight in weights),
            )

        weighted = lambda grad: lambda s, g: times(lost["b1"], grad(s, g))
        # The second moment is tiny beside its range: it needs another digit.
        absorb = [
            Scale(_mean, "b1"),
            *(Add(_mean, weighted(grad)) for grad in grads),
            Scale(_square, "b2", digits=1, power=2),
            Add(_square, square),
            Scale(_mean_weight, "b1", digits=1, power=0),
            Add(_mean_weight, lambda *_: lost["b1"]),
            Scale(_square_weight, "b2", digits=1, power=0),
            Add(_square_weight, lambda *_: lost["b2"]),
        ]
        after = [Add(_params, step)]
        if "weight_decay" in decays:
            after = [Scale(_params, "weight_decay"), *after]
        return Moves(absorb=absorb, after=after)


def _params(state):
    return state.params


def _mean(state):
    return state.memory.mean


def _square(state):
    return state.memory.square


def _mean_weight(state):
    return state.memory.mean_weight


def _square_weight(state):
    return state.memory.square_weight


def _sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root, with derivative 0 at 0."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
