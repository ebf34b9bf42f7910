"""Steps of a learned optimizer as optax takes them, for tests."""

import equinox as eqx
import jax


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
