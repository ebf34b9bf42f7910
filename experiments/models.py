"""Examples, batches, networks and losses that several experiments share."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from hindgrad.apps import datasets
from hindgrad.batches import Batch

Layers = list[dict[str, Array]]
"""For each layer its weights `w` [inputs, outputs] and biases `b` [outputs]."""


class Examples(eqx.Module):
    """Examples with their classes; of images, the features are the pixels."""

    x: Float[Array, "rows features"]
    y: Int[Array, " rows"]

    def __len__(self) -> int:
        return len(self.y)

    def __add__(self, other: "Examples") -> "Examples":
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), self, other)

    def __getitem__(self, rows: Any) -> "Examples":
        return jax.tree.map(lambda part: part[rows], self)


def images(data: datasets.Dataset, rows: np.ndarray) -> Examples:
    """Some rows of a data set, their pixels divided by the largest of all."""
    x = (data.x[rows] / data.x.max()).astype(np.float32)
    return Examples(jnp.asarray(x), jnp.asarray(data.y[rows], jnp.int32))


class Split(NamedTuple):
    """Rows apart from each other, of a data set of images."""

    train: Examples
    valid: Examples
    test: Examples
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
    parts = [images(found, r) for r in rows]
    mean = np.asarray(parts[0].x).mean(axis=0)
    train, valid, test = (Examples(part.x - mean[None], part.y) for part in parts)
    assert found.image is not None
    return Split(train, valid, test, len(found.classes), mean, found.image)


class Sampled(eqx.Module):
    """Minibatches drawn with replacement, a pure function of the step, as in the authors' code."""

    data: Examples
    key: PRNGKeyArray
    size: int = eqx.field(static=True)

    def __call__(self, t: Int[Array, ""]) -> Batch:
        key = jax.random.fold_in(self.key, t)
        index = jax.random.randint(key, (self.size,), 0, len(self.data.y))
        return Batch(self.data[index], key, index)


def gaussian(key: PRNGKeyArray, sizes: Sequence[int], log_scales: Sequence[Array]) -> Layers:
    """Gaussian weights and biases; `log_scales` are those of w and b of each layer in turn."""
    layers, scales = [], iter(log_scales)
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        w_key, b_key = jax.random.split(jax.random.fold_in(key, i))
        w = jnp.exp(next(scales)) * jax.random.normal(w_key, (inputs, outputs))
        b = jnp.exp(next(scales)) * jax.random.normal(b_key, (outputs,))
        layers.append({"w": w, "b": b})
    return layers


def dense(key: PRNGKeyArray, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, Array]:
    """A layer: weights that keep the inputs' variance, but for the scale, and biases of zero."""
    w = scale * jax.random.normal(key, (inputs, outputs)) / np.sqrt(inputs)
    return {"w": w, "b": jnp.zeros(outputs)}


def affine(layer: dict[str, Array], x: Float[Array, "rows inputs"]) -> Float[Array, "rows outputs"]:
    """x w + b."""
    return x @ layer["w"] + layer["b"][None]


def logits(layers: Layers, x: Float[Array, "rows inputs"]) -> Float[Array, "rows classes"]:
    """Layers of tanh units and a linear one; a single layer is logistic regression."""
    for layer in layers[:-1]:
        x = jnp.tanh(affine(layer, x))
    return affine(layers[-1], x)


def nll(layers: Layers, examples: Examples) -> Float[Array, ""]:
    """The mean negative log-likelihood, in nats."""
    # Not Optax's cross-entropy: that differs in the last bits, and results would not repeat.
    log_p = jax.nn.log_softmax(logits(layers, examples.x))
    return -jnp.mean(jnp.take_along_axis(log_p, examples.y[:, None], axis=1))


def cross_entropy(scores: Float[Array, "rows classes"], y: Int[Array, " rows"]) -> Float[Array, ""]:
    """The mean over the rows, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()


def error(layers: Layers, examples: Examples) -> Float[Array, ""]:
    """The share of examples that are taken for another class."""
    return jnp.mean(logits(layers, examples.x).argmax(axis=1) != examples.y)


def held_out(seed: int) -> PRNGKeyArray:
    """The key of the problems that optimizers learned with a seed are compared on. Learning draws
    its problems by keys made of the seed itself."""
    return jax.random.fold_in(jax.random.key(2016), seed)
