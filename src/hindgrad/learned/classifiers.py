"""Families of classifiers: networks of many starts and minibatches on given rows."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Examples(eqx.Module):
    """Rows with their classes."""

    x: Float[Array, "rows inputs"]
    y: Int[Array, " rows"]
    classes: int = eqx.field(static=True)


def inverse_root(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    """Normal weights cut at two standard deviations, these 1/√inputs (before the cut)."""
    return jax.random.truncated_normal(key, -2.0, 2.0, shape) / shape[0] ** 0.5


def small_normal(key: PRNGKeyArray, shape: tuple[int, int]) -> Float[Array, "inputs outputs"]:
    """Normal weights of standard deviation .01, as in the code of Andrychowicz et al. 2016. (From
    `inverse_root`, tuned baselines are faster than in the paper's figure.)"""
    return 0.01 * jax.random.normal(key, shape)


class MLPs(eqx.Module):
    """Multilayer perceptrons on the same rows: the mean cross-entropy of a minibatch, from fresh
    weights (Andrychowicz et al. 2016, section 3.2). The step's key draws the minibatch, with
    replacement.

        MLPs(Examples(x, y, classes=10), hidden=(20,), activation=jax.nn.sigmoid)

    **Arguments:**

    - `rows`: what to classify, `Examples(x, y, classes)`.
    - `hidden`: the hidden layers' sizes.
    - `activation`: a function, such as `jax.nn.relu`.
    - `batch`: how many rows a step sees.
    - `initial`: a function (key, (inputs, outputs)) to a layer's first weights; biases begin at 0.
    """

    rows: Examples
    hidden: tuple[int, ...] = eqx.field(static=True, default=(20,))
    activation: Callable = eqx.field(static=True, default=jax.nn.sigmoid)
    batch: int = eqx.field(static=True, default=128)
    initial: Callable = eqx.field(static=True, default=inverse_root)

    def __call__(self, key):
        sizes = (self.rows.x.shape[1], *self.hidden, self.rows.classes)
        keys = jax.random.split(key, len(sizes) - 1)
        params = [
            {"w": self.initial(k, shape), "b": jnp.zeros(shape[1])}
            for k, shape in zip(keys, itertools.pairwise(sizes), strict=True)
        ]
        return params, self.loss

    def loss(self, params, key):
        """The mean cross-entropy of the key's minibatch."""
        drawn = jax.random.randint(key, (self.batch,), 0, len(self.rows.y))
        x = self.rows.x[drawn]
        for layer in params[:-1]:
            x = self.activation(x @ layer["w"] + layer["b"][None])
        logits = x @ params[-1]["w"] + params[-1]["b"][None]
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, self.rows.y[drawn])
        return jnp.mean(entropy)
