"""Small learned optimizers, and their steps as optax takes them, for tests."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hindgrad.learned import (
    CoordinateLSTM,
    MomentumMLP,
    Partitioned,
    RelativeLSTM,
    RNNProp,
    SpectralLSTM,
)

OPTIMIZERS = {
    "LSTM": CoordinateLSTM((2,)),
    "RNNProp": RNNProp((2,)),
    "MLP": MomentumMLP((3,)),
    "relative": RelativeLSTM((2,)),
    "spectral": SpectralLSTM((2,)),
    "partitioned": Partitioned({"dense": MomentumMLP((2,)), "bias": CoordinateLSTM((2,))}),
}


def weights_of(optimizer, key):
    """Weights with a say from the start."""
    return jax.tree.map(lambda w: w + 0.2, optimizer.weights(key))


@eqx.filter_jit
def steps_of(optimizer, weights, grads):
    """The steps on these gradients, one after another."""
    transformation = optimizer.as_optax(weights)
    state, steps = transformation.init(grads[0]), []
    for g in grads:
        step, state = transformation.update(g, state)
        steps.append(step)
    return steps


def check_slopes(optimizer, weights, grads):
    """The derivative of some steps with respect to weights and gradients is finite."""

    @jax.jit
    @jax.grad
    def slope(inputs):
        return sum(jnp.sum(s**2) for s in jax.tree.leaves(steps_of(optimizer, *inputs)))

    assert all(np.all(np.isfinite(s)) for s in jax.tree.leaves(slope((weights, grads))))
