"""What Maclaurin, Duvenaud and Adams' experiments on MNIST share: images, batches, networks."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hindgrad.apps import datasets
from hindgrad.batches import Batch

Layers = list[dict[str, Array]]
"""For each layer its weights `w` [inputs, outputs] and biases `b` [outputs]."""


class Images(eqx.Module):
    """Images with labels."""

    x: Float[Array, "rows pixels"]
    y: Int[Array, " rows"]


class Split(NamedTuple):
    """Rows apart from each other, of a data set of images."""

    train: Images
    valid: Images
    test: Images
    classes: int
    mean: Float[np.ndarray, " pixels"]
    """The mean training image, which was subtracted from all."""
    image: tuple[int, ...]


def split(data: str, train: int, valid: int, test: int, seed: int) -> Split:
    """Draws rows for training and validation from the official training set, and takes the first
    `test` of the official test set (of a data set without one, more of the drawn rows). Pixels are
    divided by the largest, and the mean training image is subtracted, as in the authors' code."""
    found = datasets.load(data)
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(found.train))
    others = np.flatnonzero(~found.train)
    others = others if len(others) else drawn[train + valid :]
    if train + valid > len(drawn) or test > len(others):
        raise ValueError(f"'{data}' has not {train} + {valid} + {test} rows.")
    return _split(found, (drawn[:train], drawn[train : train + valid], others[:test]))


def in_order(data: str, train: int, valid: int, test: int) -> Split:
    """The official training set's first rows for training, the next for validation, and the next
    for the test, as in the authors' code. The pixels are as in `split`."""
    found = datasets.load(data)
    rows = np.flatnonzero(found.train)
    if train + valid + test > len(rows):
        raise ValueError(f"'{data}' has not {train} + {valid} + {test} training rows.")
    cuts = (train, train + valid, train + valid + test)
    return _split(found, np.split(rows, cuts)[:3])


def _split(found: datasets.Dataset, rows: Sequence[np.ndarray]) -> Split:
    x = [(found.x[r] / found.x.max()).astype(np.float32) for r in rows]
    mean = x[0].mean(axis=0)
    first, second, third = (
        Images(jnp.asarray(part - mean), jnp.asarray(found.y[r], jnp.int32))
        for part, r in zip(x, rows, strict=True)
    )
    assert found.image is not None
    return Split(first, second, third, len(found.classes), mean, found.image)


class Sampled(eqx.Module):
    """Minibatches drawn with replacement, a pure function of the step, as in the authors' code."""

    data: Images
    key: PRNGKeyArray
    size: int = eqx.field(static=True)

    def __call__(self, t: Int[Array, ""]) -> Batch:
        key = jax.random.fold_in(self.key, t)
        index = jax.random.randint(key, (self.size,), 0, len(self.data.y))
        return Batch(jax.tree.map(lambda rows: rows[index], self.data), key, index)


def gaussian(key: PRNGKeyArray, sizes: Sequence[int], log_scales: Sequence[Array]) -> Layers:
    """Gaussian weights and biases; `log_scales` are those of w and b of each layer in turn."""
    layers, scales = [], iter(log_scales)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        w_key, b_key = jax.random.split(jax.random.fold_in(key, i))
        w = jnp.exp(next(scales)) * jax.random.normal(w_key, (inputs, outputs))
        b = jnp.exp(next(scales)) * jax.random.normal(b_key, (outputs,))
        layers.append({"w": w, "b": b})
    return layers


def logits(layers: Layers, x: Float[Array, "rows inputs"]) -> Float[Array, "rows classes"]:
    """Layers of tanh units and a linear one; a single layer is logistic regression."""
    for layer in layers[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    return x @ layers[-1]["w"] + layers[-1]["b"][None]


def nll(layers: Layers, images: Images) -> Float[Array, ""]:
    """The mean negative log-likelihood, in nats."""
    log_p = jax.nn.log_softmax(logits(layers, images.x))
    return -jnp.mean(jnp.take_along_axis(log_p, images.y[:, None], axis=1))


def error(layers: Layers, images: Images) -> Float[Array, ""]:
    """The share of images that are taken for another class."""
    return jnp.mean(logits(layers, images.x).argmax(axis=1) != images.y)
