"""Networks, and what is asked of them: losses and log-odds, row by row."""

import itertools
import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from experiments.models import Examples, affine, dense, logits
from hindgrad.learned.convnets import convolve


class Network(Protocol):
    """Parameters, and the scores of the classes."""

    def start(self, key: PRNGKeyArray, image: tuple[int, ...], classes: int) -> PyTree:
        """Random parameters."""
        ...

    def logits(
        self, params: PyTree, x: Float[Array, "rows pixels"], key: PRNGKeyArray | None = None
    ) -> Float[Array, "rows classes"]:
        """The scores of the classes. In training a key draws what is left out, if anything is."""
        ...


@dataclass(frozen=True)
class Dense:
    """Layers of tanh units; logistic regression where there are none."""

    hidden: tuple[int, ...]

    def start(self, key, image, classes):
        sizes = list(itertools.pairwise((math.prod(image), *self.hidden, classes)))
        keys = jax.random.split(key, len(sizes))
        return [dense(k, *size) for k, size in zip(keys, sizes, strict=True)]

    def logits(self, params, x, key=None):
        del key
        return logits(params, x)


@dataclass(frozen=True)
class Rectified:
    """Layers of rectified units, of which dropout leaves out a share in training. Weights and
    biases start uniformly within ±1/√inputs, PyTorch's own."""

    hidden: tuple[int, ...]
    dropout: float

    def start(self, key, image, classes):
        sizes = list(itertools.pairwise((math.prod(image), *self.hidden, classes)))
        keys = jax.random.split(key, len(sizes))
        return [_uniform(k, *size) for k, size in zip(keys, sizes, strict=True)]

    def logits(self, params, x, key=None):
        for number, layer in enumerate(params[:-1]):
            x = jax.nn.relu(affine(layer, x))
            if key is not None:
                left = jax.random.bernoulli(
                    jax.random.fold_in(key, number), 1 - self.dropout, x.shape
                )
                x = jnp.where(left, x / (1 - self.dropout), 0)
        return affine(params[-1], x)


def _uniform(key, inputs, outputs):
    keys, most = jax.random.split(key), inputs**-0.5
    draw = lambda key, shape: jax.random.uniform(key, shape, minval=-most, maxval=most)
    return {"w": draw(keys[0], (inputs, outputs)), "b": draw(keys[1], (outputs,))}


@dataclass(frozen=True)
class Convolutional:
    """Convolutions of 3 × 3 pixels with tanh units, each behind a mean of 2 × 2 pixels, and a
    linear layer."""

    channels: tuple[int, ...]

    def start(self, key, image, classes):
        height, width, colors = (*image, 1)[:3]
        keys = jax.random.split(key, len(self.channels) + 1)
        pairs = itertools.pairwise((colors, *self.channels))
        kernels = [
            jax.random.normal(k, (outputs, inputs, 3, 3)) / (9 * inputs) ** 0.5
            for k, (inputs, outputs) in zip(keys[:-1], pairs, strict=True)
        ]
        biases = [jnp.zeros(outputs) for outputs in self.channels]
        pixels = height * width // 4 ** len(self.channels)
        return {
            "kernels": kernels,
            "biases": biases,
            "output": dense(keys[-1], pixels * self.channels[-1], classes),
        }

    def logits(self, params, x, key=None):
        del key
        colors = params["kernels"][0].shape[1]
        side = round((x.shape[1] / colors) ** 0.5)
        # Rows come last, as `convolve` has them.
        x = x.reshape(-1, side, side, colors).transpose(3, 1, 2, 0)
        for kernel, bias in zip(params["kernels"], params["biases"], strict=True):
            x = jnp.tanh(convolve(mean_pool(x), kernel) + bias[:, None, None, None])
        return affine(params["output"], x.reshape(-1, x.shape[-1]).T)


def mean_pool(
    x: Float[Array, "channels height width rows"],
) -> Float[Array, "channels height/2 width/2 rows"]:
    """The mean of every 2 × 2 pixels."""
    channels, height, width, rows = x.shape
    return jnp.mean(x.reshape(channels, height // 2, 2, width // 2, 2, rows), (2, 4))


def log_odds(scores: Float[Array, "rows classes"], rows: Examples) -> Float[Array, " rows"]:
    """log p / (1 − p) of each row's own class: of a single model the loss in another order."""
    own = jax.nn.one_hot(rows.y, scores.shape[1], dtype=bool)
    others = jax.nn.logsumexp(jnp.where(own, -jnp.inf, scores), 1)
    return jnp.sum(jnp.where(own, scores, 0), 1) - others


def losses(scores: Float[Array, "rows classes"], rows: Examples) -> Float[Array, " rows"]:
    """The cross-entropy of each row."""
    picked = jnp.take_along_axis(scores, rows.y[:, None], 1)[:, 0]
    return jax.nn.logsumexp(scores, 1) - picked
