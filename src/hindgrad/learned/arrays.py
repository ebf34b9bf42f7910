"""What optimizers with one network state for each array have in common."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad.learned.base import Network

TINY = 1e-30
"""Added to mean squares below a root: gradients under 1e-15 count as small."""

LARGEST = 5.0
"""Features are clipped to this size."""

SPANS = np.array([3.0, 10.0, 30.0, 100.0, 300.0], np.float32)
"""The time scales of the clock, in steps."""


def quiet_weights(network: Network, key: PRNGKeyArray, ratios: int, outputs: int) -> PyTree:
    """Weights for a network that sees so many ratios and the clock. Its outputs begin near 0, so
    that the optimizer begins near what it chooses around."""
    drawn = network.weights(key, ratios + len(SPANS), outputs)
    output = drawn["output"] | {"matrix": 0.1 * drawn["output"]["matrix"]}
    return drawn | {"output": output}


def with_clock(
    ratios: Float[Array, "ratios arrays"], count: Float[Array, ""]
) -> Float[Array, "features arrays"]:
    """The features: what is seen of the arrays, clipped, and how far `count` is on several time
    scales."""
    clock = jnp.tanh(count / SPANS - 1)[:, None]
    clock = jnp.broadcast_to(clock, (len(SPANS), ratios.shape[1]))
    return jnp.concatenate([jnp.clip(ratios, -LARGEST, LARGEST), clock])


def mean(array: Float[Array, "..."]) -> Float[Array, ""]:
    """The mean; 0 for an empty array."""
    return jnp.sum(array) / max(1, array.size)


def size(array: Float[Array, "..."], floor: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
    """The root mean square, at least the floor; its derivative is finite at 0, too."""
    return jnp.sqrt(mean(array**2) + floor**2 + TINY)
