"""`Interpolated`: past states guessed, on the straight line between the first and the last."""

import jax
import jax.numpy as jnp

from hindgrad.adjoints.base import Traits, forward
from hindgrad.adjoints.recall import Recall
from hindgrad.gradient_training import GradientTraining


class Interpolated(Recall):
    """APPROXIMATE. Takes the states in between to lie on a straight line (DrMAD: Fu et al. 2016).

    Memory: two states; no step is replayed. What the gradient is wrong by is not bounded: measure
    it on your own problem, with `hg.agreement`. The parameters before step k of T are
    `(1 − k/T) θ_0 + (k/T) θ_T`; `Momentum`'s velocity is the one that leads along that line (eq. 8
    there), other memory lies on a line too.
    """

    traits = Traits(
        states="the line between the first and the last",
        memory="two states",
        replays="none",
        exact="no",
        optimizers="any",
    )

    def pieces(self, total):
        del total  # in each piece, the line would be another one

    def is_exact(self, k):
        return k == 0

    def record(self, dynamics, state, wanted):
        del wanted
        final, outputs = forward(dynamics, state)
        return final, outputs, (state, final)

    def recall(self, dynamics, tape, k):
        first, last = tape
        share = k / dynamics.steps
        state = jax.tree.map(lambda a, b: _between(a, b, share), first, last)
        if isinstance(dynamics, GradientTraining) and dynamics.optimizer.moving is not None:
            params, memory, model = state
            stride = jax.tree.map(lambda a, b: (b - a) / dynamics.steps, first[0], last[0])
            coefficients = dynamics.coefficients(dynamics.start + k - 1)
            along = dynamics.optimizer.moving.memory_along(stride, coefficients)
            if along is not None:
                choose = lambda a, b: jnp.where(k == 0, a, b)
                memory = jax.tree.map(choose, first[1], along)
            state = params, memory, model
        return state, tape


def _between(a, b, share):
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return a
    return a + share.astype(a.dtype) * (b - a)
