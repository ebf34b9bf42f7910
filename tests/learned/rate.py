"""The smallest learned optimizer: one weight, the logarithm of a rate."""

import jax
import jax.numpy as jnp

from hindgrad.learned import LearnedOptimizer


class Rate(LearnedOptimizer):
    """Gradient descent at the rate exp(weights["log_rate"])."""

    second_derivatives: bool = False

    def weights(self, key):
        return {"log_rate": jnp.log(0.05) + 0.01 * jax.random.normal(key)}

    def begin(self, params):
        del params

    def step(self, weights, grads, memory):
        return jax.tree.map(lambda g: -jnp.exp(weights["log_rate"]) * g, grads), memory
