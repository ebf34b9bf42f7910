"""Networks that go over coordinates. Coordinates come last, so that gates are long vectors."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad.learned.base import Network


class LSTM(Network):
    """Layers of long short-term memory, and a linear layer on top (Andrychowicz et al. 2016,
    section 2.1). The state of a layer is its output and its cell."""

    hidden: tuple[int, ...] = (20, 20)

    def weights(self, key, features, outputs):
        keys = jax.random.split(key, len(self.hidden) + 1)
        sizes = [features, *self.hidden]
        layers = [
            linear(k, inputs + hidden, 4 * hidden)
            for k, inputs, hidden in zip(keys, sizes, self.hidden, strict=False)
        ]
        return {"layers": layers, "output": linear(keys[-1], sizes[-1], outputs)}

    def begin(self, coordinates):
        # Arrays of their own for each: donated memory must not be shared.
        return [(jnp.zeros((h, coordinates)), jnp.zeros((h, coordinates))) for h in self.hidden]

    def __call__(self, weights, features, state):
        after, x = [], features
        for layer, (output, cell) in zip(weights["layers"], state, strict=True):
            gates = apply(layer, jnp.concatenate([x, output]))
            write, forget, read, fresh = jnp.split(gates, 4)
            cell = sigmoid(forget + 1) * cell + sigmoid(write) * jnp.tanh(fresh)
            x = sigmoid(read) * jnp.tanh(cell)
            after.append((x, cell))
        return apply(weights["output"], x), after


class MLP(Network):
    """Layers of rectified units, without a memory."""

    hidden: tuple[int, ...] = (32, 32)

    def weights(self, key, features, outputs):
        keys = jax.random.split(key, len(self.hidden) + 1)
        sizes = [features, *self.hidden, outputs]
        pairs = zip(keys, sizes[:-1], sizes[1:], strict=True)
        return {"layers": [linear(k, inputs, width) for k, inputs, width in pairs]}

    def begin(self, coordinates):
        del coordinates

    def __call__(self, weights, features, state):
        *hidden, output = weights["layers"]
        x = features
        for layer in hidden:
            x = jax.nn.relu(apply(layer, x))
        return apply(output, x), state


def linear(key: PRNGKeyArray, inputs: int, outputs: int) -> dict[str, Array]:
    """A linear layer: normal weights of variance 1 / inputs, no bias yet."""
    matrix = jax.random.normal(key, (outputs, inputs)) / inputs**0.5
    return {"matrix": matrix, "bias": jnp.zeros(outputs)}


def apply(
    layer: PyTree, x: Float[Array, "inputs coordinates"]
) -> Float[Array, "outputs coordinates"]:
    """The linear layer at all coordinates."""
    return layer["matrix"] @ x + layer["bias"][:, None]


def sigmoid(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logistic function; tanh is the faster of the two on CPU."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5
