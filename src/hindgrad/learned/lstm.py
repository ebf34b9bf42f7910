"""The learned optimizer of the paper: an LSTM on every coordinate's gradient."""

import jax.numpy as jnp

from hindgrad.learned import flat
from hindgrad.learned.base import Coordinatewise, Scaled, View
from hindgrad.learned.networks import LSTM


class LogSign(View):
    """The gradient's logarithm and sign: (log|g| / p, sign g) where |g| ≥ e^−p, (−1, e^p g) below
    (Andrychowicz et al. 2016, appendix A).

    **Arguments:**

    - `p`: below e^−p, gradients are distinguished linearly. 10 in the paper, 5 in its code.
    """

    p: float = 10.0

    @property
    def features(self):
        return 2

    def see(self, grads, memory):
        g = flat.ravel(grads)
        size = jnp.log(jnp.maximum(jnp.abs(g), jnp.exp(-self.p)))
        return jnp.stack([size / self.p, jnp.clip(g * jnp.exp(self.p), -1, 1)]), None, memory

    def say(self, outputs, unit):
        del unit
        return outputs[0]


class Plain(View):
    """The gradient as it is."""

    @property
    def features(self):
        return 1

    def see(self, grads, memory):
        return flat.ravel(grads)[None], None, memory

    def say(self, outputs, unit):
        del unit
        return outputs[0]


class CoordinateLSTM(Coordinatewise):
    """An LSTM on every coordinate, with the same weights and a hidden state for each
    (Andrychowicz et al. 2016, section 2.1).

    **Arguments:**

    - `hidden`: the layers' sizes.
    - `preprocess`: what it sees of the gradient; None for the gradient as it is.
    - `scale`: what its output is multiplied by to be added to the parameters.
    - `second_derivatives`: see `LearnedOptimizer`.
    """

    hidden: tuple[int, ...] = (20, 20)
    preprocess: View | None = LogSign()
    scale: float = 0.1
    second_derivatives: bool = False

    @property
    def view(self):
        return Scaled(Plain() if self.preprocess is None else self.preprocess, self.scale)

    @property
    def network(self):
        return LSTM(self.hidden)
