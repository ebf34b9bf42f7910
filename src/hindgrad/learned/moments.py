"""Learned optimizers that see running averages of the gradient, relative to its size."""

import jax
import jax.numpy as jnp
import numpy as np

from hindgrad.learned import flat
from hindgrad.learned.base import Coordinatewise, Scaled, View
from hindgrad.learned.networks import LSTM, MLP

TINY = 1e-12
"""Added to mean squares below a root: gradients under a millionth count as small."""


class Normalized(View):
    """m̂/√v̂ and g/√v̂ with Adam's averages m̂ and v̂; outputs are bounded by tanh (Lv, Jiang and
    Li 2017, section 4.1)."""

    decays: tuple[float, float] = (0.95, 0.95)

    @property
    def features(self):
        return 2

    def begin(self, params):
        size = flat.size(params)
        return {"m": jnp.zeros(size), "v": jnp.zeros(size), "count": jnp.zeros(())}

    def see(self, grads, memory):
        g, count = flat.ravel(grads), memory["count"] + 1
        first, second = self.decays
        m = first * memory["m"] + (1 - first) * g
        v = second * memory["v"] + (1 - second) * g**2
        root = jnp.sqrt(v / (1 - second**count) + TINY)
        features = jnp.stack([m / (1 - first**count) / root, g / root])
        return features, None, {"m": m, "v": v, "count": count}

    def say(self, outputs, unit):
        del unit
        return jnp.tanh(outputs[0])


class RNNProp(Coordinatewise):
    """An LSTM on Adam's normalised features, with bounded steps (Lv, Jiang and Li 2017). Learn it
    on randomly scaled coordinates (`RandomlyScaled`), as they do. (In their code a layer of 20 ELU
    units lies between features and LSTM; here there is none.)

    **Arguments:**

    - `hidden`: the layers' sizes.
    - `decays`: of the averages of the gradient and of its square.
    - `scale`: the largest step of a coordinate.
    - `second_derivatives`: see `LearnedOptimizer`.
    """

    hidden: tuple[int, ...] = (20, 20)
    decays: tuple[float, float] = (0.95, 0.95)
    scale: float = 0.1
    second_derivatives: bool = False

    @property
    def view(self):
        return Scaled(Normalized(self.decays), self.scale)

    @property
    def network(self):
        return LSTM(self.hidden)


class Moments(View):
    """Averages of the gradient over several spans, each relative to its root mean square over the
    array that it belongs to, and relative to the coordinate's own; how large the gradient is
    against its past; how large the array is; and the step, at several time scales (after Metz et
    al. 2020, appendix B).

    Two outputs, d and s: the step is −(a + .1 · d) · exp(`LARGEST` · tanh(.1 · s)), where a is the
    average whose decay is nearest to .9, relative to the coordinate's own size: at d = s = 0, the
    step of Adam."""

    decays: tuple[float, ...] = (0.1, 0.5, 0.9, 0.99)

    @property
    def features(self):
        return 2 * len(self.decays) + 4 + len(SPANS)

    @property
    def outputs(self):
        return 2

    def begin(self, params):
        size = flat.size(params)
        return {
            "m": jnp.zeros((len(self.decays), size)),
            "v": jnp.zeros(size),
            "count": jnp.zeros(()),
        }

    def see(self, grads, memory):
        g, count = flat.ravel(grads), memory["count"] + 1
        decays = np.asarray(self.decays, np.float32)[:, None]
        m = decays * memory["m"] + (1 - decays) * g[None]
        v = 0.95 * memory["v"] + 0.05 * g**2
        averages = m / (1 - decays**count)
        own = jnp.sqrt(v / (1 - 0.95**count) + TINY)
        whole = flat.spread(jax.tree.map(_root_mean_square, grads), grads)
        length = flat.spread(jax.tree.map(lambda x: jnp.log(x.size) / 5 - 1, grads), grads)
        clock = jnp.tanh(count / SPANS - 1)[:, None]
        features = [
            averages / whole[None],
            averages / own[None],
            jnp.stack([g / whole, g / own, jnp.log(own / whole), length]),
            jnp.broadcast_to(clock, (len(SPANS), g.size)),
        ]
        adams = averages[np.argmin(np.abs(np.array(self.decays) - 0.9))] / own
        seen = jnp.clip(jnp.concatenate(features), -10, 10)
        return seen, adams, {"m": m, "v": v, "count": count}

    def say(self, outputs, unit):
        direction, size = outputs
        return -(unit + 0.1 * direction) * jnp.exp(LARGEST * jnp.tanh(0.1 * size))


LARGEST = 3.0
"""The largest logarithm of a step in units of Adam's."""


def _root_mean_square(x):
    return jnp.sqrt(jnp.mean(x.astype(jnp.float32) ** 2) + TINY)


SPANS = np.array([1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0], np.float32)
"""The time scales, in steps."""


class MomentumMLP(Coordinatewise):
    """A small multilayer perceptron on averages of the gradient (after Metz et al. 2020): without
    a state of its own, cheaper than an LSTM. Before it has learned anything it is nearly Adam with
    rate `scale`, so that learning begins where there is something to learn from.

    **Arguments:**

    - `hidden`: the layers' sizes.
    - `decays`: of the gradient's averages.
    - `scale`: the rate of the Adam that it begins as; its steps have from 1/20 to 20 times that
      size.
    - `second_derivatives`: see `LearnedOptimizer`.
    """

    hidden: tuple[int, ...] = (32, 32)
    decays: tuple[float, ...] = (0.1, 0.5, 0.9, 0.99)
    scale: float = 0.01
    second_derivatives: bool = False

    @property
    def view(self):
        return Scaled(Moments(self.decays), self.scale)

    @property
    def network(self):
        return MLP(self.hidden)
