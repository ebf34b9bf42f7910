"""Models that are trained, and trained again without some rows."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments.attribution.networks import Network, log_odds, losses
from experiments.models import Examples, images
from hindgrad.apps import datasets
from hindgrad.attribution import retraining
from hindgrad.attribution.leaf import only_row_of_numbers
from hindgrad.batches import Batch
from hindgrad.progress import Bar


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network, and how it is trained."""

    name: str
    network: Network
    data: str
    rows: int
    steps: int
    rate: float
    damping: float
    """Of the influence functions."""
    size: int = 100
    """Of a batch."""
    decay: float = 0.9
    """Of the momentum."""
    center: float | None = None
    """What is subtracted from all pixels, of which the largest is 1; None for the mean training
    image."""
    unit: float = 1.0
    """What they are then divided by."""


class Draw(eqx.Module):
    """Rows drawn for a model: the queries are test rows too."""

    model: Model = eqx.field(static=True)
    train: Examples
    queries: Examples
    test: Examples
    image: tuple[int, ...] = eqx.field(static=True)
    classes: int = eqx.field(static=True)


def draw(model: Model, queries: int, seed: int) -> Draw:
    """Draws training rows from the official training set and queries from the official test set
    (of a data set without one, from the rows that are left)."""
    data, rng = datasets.load(model.data), np.random.default_rng(seed)
    drawn = rng.permutation(np.flatnonzero(data.train))
    others = rng.permutation(np.flatnonzero(~data.train))
    train = images(data, drawn[: model.rows])
    test = images(data, others if len(others) else drawn[model.rows :])
    center = jnp.mean(train.x, 0, keepdims=True) if model.center is None else model.center
    train, test = (Examples((part.x - center) / model.unit, part.y) for part in (train, test))
    assert data.image is not None
    return Draw(model, train, test[:queries], test, data.image, len(data.classes))


class Start(eqx.Module):
    """The initial parameters; like those below it compiles once for all draws."""

    model: Model = eqx.field(static=True)
    image: tuple[int, ...] = eqx.field(static=True)
    classes: int = eqx.field(static=True)

    def __call__(self, _: PyTree, key: PRNGKeyArray) -> PyTree:
        return self.model.network.start(key, self.image, self.classes)


class Weighted(eqx.Module):
    """The loss of a batch whose rows have weights."""

    network: Network = eqx.field(static=True)

    def __call__(self, params: PyTree, weights: Float[Array, " rows"], batch: Batch):
        scores = self.network.logits(params, batch.data.x, batch.key)
        return jnp.mean(weights[batch.index] * losses(scores, batch.data))


class Training(eqx.Module):
    """The training on all rows; a key draws the order."""

    model: Model = eqx.field(static=True)
    train: Examples

    def __call__(self, key: PRNGKeyArray) -> hg.Training:
        return hg.Training(
            Weighted(self.model.network),
            optimizer=hg.Momentum(self.model.rate, decay=self.model.decay),
            batches=hg.minibatches(self.train, size=self.model.size, key=key),
            steps=self.model.steps,
        )


class Queries(eqx.Module):
    """The log-odds of each query's own class."""

    network: Network = eqx.field(static=True)
    rows: Examples

    def __call__(self, params: PyTree, *_: Any) -> Float[Array, " queries"]:
        return log_odds(self.network.logits(params, self.rows.x), self.rows)


def objective_of(rows: Draw) -> hg.Objective:
    """The queries after a training."""
    training = Training(rows.model, rows.train)
    init = Start(rows.model, rows.image, rows.classes)
    return hg.Objective(training, init=init, score=Queries(rows.model.network, rows.queries))


def ones(rows: Draw) -> Float[Array, " rows"]:
    """The weights of the training rows where none is removed."""
    return jnp.ones(len(rows.train))


def params(rows: Draw, key: PRNGKeyArray, **options: Any) -> PyTree:
    """The trained parameters; the options are those of calling a `Training`."""
    return objective_of(rows).run(ones(rows), key, **options).params


def changes(
    rows: Draw, gone: Bool[np.ndarray, "runs rows"], key: PRNGKeyArray
) -> Float[np.ndarray, "runs queries"]:
    """By how much the queries change in the same run without some rows."""
    objective, weights = objective_of(rows), ones(rows)
    leaf = only_row_of_numbers(weights)
    assert leaf is not None
    every = np.concatenate([np.zeros_like(gone[:1]), gone])
    with Bar(len(every), shown=False) as bar:
        # One after another: side by side they are slower on a CPU.
        found = retraining.retrained(objective, weights, leaf, every, key, block=1, bar=bar)
    return found[1:].astype(np.float64) - found[:1]


class Remaining(eqx.Module):
    """The loss of a batch of those rows that remain; the hyperparameters are their numbers."""

    network: Network = eqx.field(static=True)
    train: Examples

    def __call__(self, params: PyTree, remaining: Int[Array, " half"], batch: Batch):
        rows = self.train[remaining[batch.data]]
        return jnp.mean(losses(self.network.logits(params, rows.x, batch.key), rows))


@eqx.filter_jit
def of_subset(
    rows: Draw, remaining: Int[Array, " half"], key: PRNGKeyArray
) -> Float[Array, " queries"]:
    """The queries after a training of its own on some rows: as many epochs, from another start and
    in another order."""
    count, model = len(remaining), rows.model
    training = hg.Training(
        Remaining(model.network, rows.train),
        optimizer=hg.Momentum(model.rate, decay=model.decay),
        batches=hg.minibatches(jnp.arange(count), size=model.size, key=key),
        steps=model.steps * count // len(rows.train),
    )
    init, queries = Start(model, rows.image, rows.classes), Queries(model.network, rows.queries)
    return queries(hg.Objective(training, init=init, score=queries).run(remaining, key).params)


def of_subsets(
    rows: Draw, remaining: Bool[np.ndarray, "runs rows"], key: PRNGKeyArray
) -> Float[np.ndarray, "runs queries"]:
    """The queries after a training on each subset, each with a key of its own."""
    keys = jax.random.split(key, len(remaining))
    pairs = zip(remaining, keys, strict=True)
    values = [of_subset(rows, jnp.asarray(np.flatnonzero(some)), key) for some, key in pairs]
    return np.array(values, np.float64)
