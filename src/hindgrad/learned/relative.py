"""A learned momentum, that sees nothing but ratios."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hindgrad.learned.arrays import mean, quiet_weights, size, with_clock
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.networks import LSTM

ROUNDING = 1e-7
"""Changes that are smaller than this against the largest gradient so far count as rounding."""

RATIOS = 7
"""How many numbers the network sees of an array."""


class RelativeLSTM(LearnedOptimizer):
    """Momentum, s_{t+1} = β_t s_t − α_t ∇_t and θ_{t+1} = θ_t + s_{t+1}, whose rate α_t and decay
    β_t an LSTM chooses anew for every array and step.

    The LSTM has one state for each array. It sees how the gradient, the one before and the last
    step compare: ratios of their sizes and cosines between them, among these the change of the
    gradient along the last step, which is the curvature that it met. Gradients of all sizes look
    alike to it, so that it converges at the same speed however close to the minimum. One network
    for each array, and inputs and steps relative to the gradient's size, follow Wichrowska et al.
    2017 and Metz et al. 2020.

    **Arguments:**

    - `hidden`: the layers' sizes.
    - `rate`, `decay`: what it chooses around; before learning, it is nearly momentum with these.
    - `second_derivatives`: see `LearnedOptimizer`. A momentum that is learned without them does
      not know that gradients answer to its steps.
    """

    hidden: tuple[int, ...] = (20,)
    rate: float = 0.01
    decay: float = 0.9
    second_derivatives: bool = True

    @property
    def network(self) -> LSTM:
        """Goes over arrays, in place of coordinates."""
        return LSTM(self.hidden)

    def weights(self, key):
        return quiet_weights(self.network, key, RATIOS, 2)

    def begin(self, params):
        leaves = jax.tree.leaves(params)
        zeros = lambda: jax.tree.map(lambda p: jnp.zeros(p.shape), params)
        return {
            "last": zeros(),
            "before": zeros(),
            "largest": [jnp.zeros(len(p)) for p in leaves],
            "count": jnp.zeros(()),
            "state": self.network.begin(sum(map(len, leaves))),
        }

    def step(self, weights, grads, memory):
        leaves, structure = jax.tree.flatten(grads)
        if not leaves:
            return grads, memory
        grads = [jnp.asarray(g, float) for g in leaves]
        lasts, befores = jax.tree.leaves(memory["last"]), jax.tree.leaves(memory["before"])
        sizes = [jax.vmap(size)(g) for g in grads]
        largest = [jnp.maximum(*pair) for pair in zip(memory["largest"], sizes, strict=True)]
        look, arrays = jax.vmap(self._ratios), zip(grads, lasts, befores, largest, strict=True)
        ratios = jnp.concatenate([look(*array) for array in arrays]).T
        features = with_clock(ratios, memory["count"])
        outputs, state = self.network(weights, features, memory["state"])
        rates = jnp.split(self.rate * jnp.exp(outputs[0]), len(leaves))
        odds = self.decay / (1 - self.decay)
        decays = jnp.split(jax.nn.sigmoid(outputs[1] + jnp.log(odds)), len(leaves))
        steps = [
            _like(decay, g) * last - _like(rate, g) * g
            for decay, last, rate, g in zip(decays, lasts, rates, grads, strict=True)
        ]
        steps = jax.tree.unflatten(structure, steps)
        return steps, {
            "last": steps,
            "before": jax.tree.unflatten(structure, grads),
            "largest": largest,
            "count": memory["count"] + 1,
            "state": state,
        }

    def _ratios(
        self,
        grad: Float[Array, "..."],
        last: Float[Array, "..."],
        before: Float[Array, "..."],
        largest: Float[Array, ""],
    ) -> Float[Array, " ratios"]:
        """What the network sees of one array; `largest` is the largest gradient so far. The first
        step, which has nothing to compare with, is known by ratios that are clipped."""
        noise = ROUNDING * largest
        kinds = {"g": grad, "b": before, "c": grad - before, "s": last}
        floors = {"g": noise, "b": noise, "c": noise, "s": self.rate * noise}
        sizes = {name: size(x, floors[name]) for name, x in kinds.items()}
        unit = {name: x / sizes[name] for name, x in kinds.items()}
        pairs = (("g", "s"), ("c", "s"), ("g", "b"), ("c", "g"))
        seen = [
            jnp.log(sizes["g"] / sizes["b"]),
            jnp.log(self.rate * sizes["c"] / sizes["s"]) / 2,
            jnp.log(self.rate * sizes["g"] / sizes["s"]) / 2,
            *(mean(unit[first] * unit[second]) for first, second in pairs),
        ]
        return jnp.stack(seen)


def _like(numbers: Float[Array, " problems"], array: Float[Array, "problems ..."]) -> Array:
    """The numbers with as many axes as the array, for broadcasting."""
    return numbers.reshape(-1, *(1,) * (array.ndim - 1))
